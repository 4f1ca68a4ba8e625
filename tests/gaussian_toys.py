"""Gaussian data whose spectrum is known, its exact model, and the exact law of what a linear sampler makes of it."""

import itertools
from types import SimpleNamespace

import torch

from heatgen.data.module import DataSpec
from heatgen.forward.process import ObservedProcess
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.model.oracle import Oracle
from heatgen.oracle.gaussian import GaussianOracle

VARIANCE = 6.016748  # the sum of |k|^-4 over the whole wave numbers of 32x32


def wave_numbers(height, width):
    """k^2 for the whole wave numbers of the FFT, (H, W) float64."""
    y, x = (torch.fft.fftfreq(n, 1 / n, dtype=torch.float64) for n in (height, width))
    return y[:, None] ** 2 + x**2


def power_law(shape=(1, 8, 8), mean=0.0):
    """|k|^-4 in units of the variance of the law on 32x32, and `mean` at k = 0, (C, H, W)."""
    k2 = wave_numbers(*shape[-2:])
    spectrum = torch.where(k2 > 0, k2.clamp(min=1) ** -2, torch.zeros_like(k2)) * shape[-2] * shape[-1] / VARIANCE
    spectrum[0, 0] = mean
    return spectrum.expand(shape).clone()


def gaussian(shape=(1, 8, 8), boundary="periodic", mean=0.0):
    return DataSpec(shape, (-3.0, 3.0), boundary, None, power_law(shape, mean))


def exact(process, spec=None):
    """The exact answers for a map."""
    return GaussianOracle(process, spec or gaussian(process.shape))


def exact_model(process=None, spec=None, mean=0.0):
    """model=oracle for a map, which knows the spectrum."""
    process = process or StochasticHeat((1, 8, 8), 8)
    model = Oracle(process, torch.nn.Identity(), None, None)
    model.calibrate(SimpleNamespace(spec=spec or gaussian(process.shape, mean=mean)))
    return model


def normal(seed=0):
    """White noise in the dtype it is asked for, from one stream."""
    generator = torch.Generator().manual_seed(seed)
    return SimpleNamespace(normal_like=lambda u: torch.randn(u.shape, generator=generator, dtype=u.dtype))


def at(time, batch=1):
    return torch.tensor([time], dtype=torch.float64).expand(batch)


class Unit:
    """The noise of a batch whose item j gets 1 in every coefficient at draw j and nothing else; item 0 never does."""

    def __init__(self, basis):
        self.basis, self.draws = basis, 0

    def normal_like(self, u):
        self.draws += 1
        ones = torch.zeros_like(u)
        ones[self.draws] = 1
        return self.basis.inverse(ones)


def end_law(sampler, model, levels, draws, **options):
    """What sampler is by coefficient, if it is linear: u_0 = gain u_K + noise of a variance; both by level, {k: (C, H, W)}.

    draws: an upper bound of how often it asks for noise.
    """
    basis, states = model.exactly.basis, {}
    start = torch.zeros(draws + 1, *model.process.shape, dtype=torch.float64)
    start[0] = 1
    sampler(model, basis.inverse(start), levels, Unit(basis), lambda k, u: states.update({k: basis(u)}), **options)
    return {k: c[0] for k, c in states.items()}, {k: c[1:].square().sum(0) for k, c in states.items()}


def orders(errors):
    """The observed order of convergence between neighbours of a list of errors, the step halved from one to the next."""
    return [(torch.as_tensor(a) / torch.as_tensor(b)).log2() for a, b in itertools.pairwise(errors)]


class Falling(ObservedProcess):
    """u_t = (1 - t / 2) u_0 + t^2 + sigma eps."""

    def gain(self, t):
        return 1 - self.column(t) / 2

    def offset(self, t):
        return self.column(t) ** 2


def fields(n=2, shape=(1, 8, 8)):
    """The same white fields each time, (n, *shape)."""
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
