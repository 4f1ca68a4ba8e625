"""Preconditioning by coefficient: what is known of u_0 from second moments, and the rest in units of its own deviation."""

from dataclasses import dataclass

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.forward.moments import floored, moments
from heatgen.forward.process import ForwardProcess
from heatgen.runtime.peers import ALONE, Peers

KINDS = ("coefficient", "scalar", "centred")  # of m and S
NETWORK_INPUTS = ("whitened", "wiener", "state")
TINY = 1e-200  # a mean square below it counts as it, so that 0 stays 0


def check_use(key: str, value: str, choices: tuple[str, ...], by: str, used: str) -> str:
    """An option of preconditioned networks, where the option `by` has the value `used`. ConfigError: nothing uses it."""
    chosen = check.choice(key, value, choices)
    if chosen != choices[0] and used != "preconditioned":
        raise ConfigError(f"{key}={chosen} is for {by}=preconditioned, not {used}; choose that too, or remove it.")
    return chosen


def measure_moments(process: ForwardProcess, data: DataModule, peers: Peers = ALONE) -> tuple[Tensor, Tensor]:
    """The mean and variance of each coefficient of training images."""
    mean, square = moments(process, data, peers)
    return mean, (square - mean**2).clamp(min=0)


def prior_moments(process: ForwardProcess, mean: Tensor, spectrum: Tensor, kind: str) -> tuple[Tensor, Tensor]:
    """m and S of the preconditioning, from the mean and variance of each coefficient.

    Args:
        process: the map, in whose basis they are.
        mean, spectrum: (C, H, W), float64.
        kind: coefficient: they themselves; scalar: 0, and the mean square of all; centred: the mean pixel, and the mean
            square of all about it.
    """
    if kind == "coefficient":
        return mean, floored(spectrum)
    if kind == "scalar":
        return torch.zeros_like(mean), (spectrum + mean**2).mean().expand_as(spectrum)
    pixel = process.basis.inverse(mean[None]).mean()
    grey = process.basis(pixel.expand_as(mean)[None].contiguous())[0]
    return grey, (spectrum + (mean - grey) ** 2).mean().expand_as(spectrum)


@dataclass(frozen=True)
class Preconditioning:
    """v = m + (A S / V) c + L sqrt(S / V) F,    c = u_t - b - A m,    V = A^2 S + L^2,    by coefficient.

    What F should give, F* for v = u_0, has unit variance in each coefficient of data with mean m and variance S. It sees

        whitened    c / sqrt(V): all coefficients at one size, those that are lost too, which are noise then,
        wiener      A S / V c, the best linear estimate of u_0 - m, without the noise of coefficients that are lost,
        state       c,

    the latter two over the root of their mean square.

    Args:
        process: a diagonal map.
        mean, spectrum: m and S over the coefficients, broadcastable to (B, C, H, W), float64; S > 0.
        network_input: whitened, wiener or state.
    """

    process: ForwardProcess
    mean: Tensor
    spectrum: Tensor
    network_input: str = NETWORK_INPUTS[0]

    def coefficients(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """A, L and V at t, float64."""
        gain, std = self.process.gain(t).double(), self.process.std(t).double()
        return gain, std, gain**2 * self.spectrum + std**2

    def removed(self, t: Tensor) -> Tensor:
        """The share of the variance of u_0 that a linear estimate from u_t leaves, sum(S L^2 / V) / sum(S); (B,) float64."""
        _, std, variance = self.coefficients(t)
        lost = (std**2 / variance).masked_fill(variance == 0, 0.0) * self.spectrum
        return lost.flatten(1).sum(1) / self.spectrum.expand(lost.shape[1:]).sum()

    def centred(self, u: Tensor, t: Tensor) -> Tensor:
        """c, the coefficients of u - b - A m."""
        return self.process.basis(u.double()) - self.process.offset(t) - self.process.gain(t) * self.mean

    def input(self, u: Tensor, t: Tensor) -> Tensor:
        """What F sees, (B, C, H, W), in the precision of u."""
        gain, _, variance = self.coefficients(t)
        if self.network_input == "whitened":
            weight = variance.rsqrt()
        else:
            weight = gain * self.spectrum / variance if self.network_input == "wiener" else variance.new_ones(variance.shape)
            weight = weight * (weight**2 * variance).mean((1, 2, 3), keepdim=True).clamp(min=TINY).rsqrt()
        return self.process.basis.inverse(self.centred(u, t) * weight).to(u)

    def slope(self, t: Tensor) -> Tensor:
        """L sqrt(S / V), how far v goes with F."""
        _, std, variance = self.coefficients(t)
        return std * (self.spectrum / variance).sqrt()

    def estimate(self, u: Tensor, t: Tensor, output: Tensor) -> Tensor:
        """v of F = output, (B, C, H, W), in the precision of u."""
        gain, _, variance = self.coefficients(t)
        basis, known = self.process.basis, gain * self.spectrum / variance * self.centred(u, t)
        return basis.inverse(self.mean + known + self.slope(t) * basis(output.double())).to(u)

    def target(self, u0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """F* of u_t = A u_0 + b + L eps, (B, C, H, W) float64: (u_0 - m - A S / V c) / (L sqrt(S / V)).

        It is taken without that difference of near numbers.
        """
        gain, std, variance = self.coefficients(t)
        basis, scale = self.process.basis, self.spectrum.sqrt()
        target = std / scale * (basis(u0.double()) - self.mean) - gain * scale * basis(eps.double())
        return basis.inverse(target / variance.sqrt())
