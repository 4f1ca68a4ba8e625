"""What 20 steps of every sampler make of exact estimates, over maps of every kind: the errors that the docs state."""

import functools
from types import SimpleNamespace

import pytest
import torch
from conftest import shipped_map
from gaussian_toys import end_law, exact_model, gaussian, normal

from heatgen.data.module import DataSpec, Mixture
from heatgen.model.grid import Grid
from heatgen.model.oracle import Oracle
from heatgen.oracle.mixture import MixtureOracle
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.heun import heun
from heatgen.sampler.momentum import momentum
from heatgen.sampler.multistep import multistep
from heatgen.sampler.ode import ode
from heatgen.sampler.predictor_corrector import predictor_corrector
from heatgen.sampler.sde import sde

pytestmark = pytest.mark.slow
SHAPE, STEPS = (1, 8, 8), 20
MAPS = {  # spacing of the steps
    "edm": "rho",
    "flow": "level",
    "variance_preserving": "level",
    "hdfm": "level",
    "blur_vp": "level",
    "equal_snr": "level",
}
SAMPLERS = [  # options, the error of the variance of Gaussian fields, and of the distribution function of a mixture
    (ancestral, {}, 1e-9, 0.10),
    (heun, {}, 0.06, 0.08),
    (heun, {"order": 1}, 0.22, 0.09),
    (heun, {"churn": 10.0}, 0.15, 0.09),
    (multistep, {"order": 2}, 0.05, 0.08),
    (multistep, {"order": 3}, 0.04, 0.08),
    (momentum, {}, 0.36, 0.10),
    (momentum, {"form": "sde"}, 0.55, 0.08),
    (ode, {}, 1.5, 0.25),
    (sde, {}, 0.55, 0.08),
    (predictor_corrector, {}, 0.02, 0.11),
]
every_sampler = pytest.mark.parametrize(("sampler", "options", "of_variance", "of_mixture"), SAMPLERS)
SAMPLES = 1000


@functools.cache
def gaussian_model(name):
    """The exact model of a map, for Gaussian fields of its own walls, whose spectrum the map has seen where it wants to."""
    process = shipped_map(name, SHAPE, 100)
    spec = gaussian(SHAPE, "periodic" if name == "equal_snr" else "neumann", mean=0.5)
    if name == "equal_snr":
        noise = normal(1).normal_like(torch.zeros(4000, *SHAPE, dtype=torch.float64))
        u0 = process.basis.inverse(spec.spectrum.sqrt() * noise).float()
        process.prepare(SimpleNamespace(images=lambda split: range(4000), get=lambda split, indices: u0[list(indices)]))
    return exact_model(process, spec)


def variance(model, sampler, times, **options):
    """The variance of samples by coefficient, without a random number, and that of the data."""
    draws = {multistep: 0, ode: 0, predictor_corrector: 2 * len(times)}.get(sampler, len(times))
    start = model.exactly.variance(times[-1:])[0].expand(SHAPE)
    gain, noise = end_law(sampler, model, times, draws, **options)
    return gain[0] ** 2 * start + noise[0], model.exactly.spectrum


@every_sampler
@pytest.mark.parametrize("name", MAPS)
def test_the_variance_of_gaussian_fields_is_that_of_the_data_within_the_stated_error(
    name, sampler, options, of_variance, of_mixture
):
    model = gaussian_model(name)
    found, data = variance(model, sampler, Grid(STEPS, MAPS[name]).times(model.process, True), **options)
    assert abs(found.sum() / data.sum() - 1) < of_variance


@functools.cache
def mixture_model(name):
    """The exact model of a map for two blobs on a line, whose spread it has measured, and their law."""
    process = shipped_map(name, (1, 1, 1), 20)
    weights, means, stds = (torch.tensor(x, dtype=torch.float64) for x in ([0.4, 0.6], [0.2, 0.7], [0.05, 0.1]))
    law = Mixture(weights, means.reshape(-1, 1, 1, 1), stds)
    model = Oracle(process, torch.nn.Identity(), None, None)
    model.oracle = MixtureOracle(process, DataSpec((1, 1, 1), bits=None, mixture=law))
    u0 = drawn(law, 500)
    data = SimpleNamespace(images=lambda split: u0, get=lambda split, indices: u0[list(indices)], batch_size=128)
    model.measure(data, len(u0))
    return model, law


def drawn(law, n):
    """Draws of the mixture, two fifths of them of its first blob."""
    part = (torch.arange(n) % 5 >= 2).long()
    noise = normal(1).normal_like(torch.zeros(n, dtype=torch.float64))
    return (law.means.flatten()[part] + law.stds[part] * noise).reshape(-1, 1, 1, 1)


@every_sampler
@pytest.mark.parametrize("name", ["edm", "flow", "variance_preserving"])
def test_the_distribution_of_a_mixture_is_that_of_the_data_within_the_stated_error(
    name, sampler, options, of_variance, of_mixture
):
    model, law = mixture_model(name)
    weights, means, stds = law.weights, law.means.flatten(), law.stds
    u0 = drawn(law, SAMPLES)
    times = Grid(STEPS, MAPS[name]).times(model.process, True)
    u = model.process.perturb(u0, times[-1:].expand(SAMPLES), normal(2).normal_like(u0))
    x = sampler(model, u, times, normal(3), **options).flatten().sort().values
    exact = sum(w * torch.special.ndtr((x - m) / s) for w, m, s in zip(weights, means, stds, strict=True))
    assert (exact - (torch.arange(SAMPLES) + 0.5) / SAMPLES).abs().max() < of_mixture


def error(model, sampler, steps):
    """How far the variance is from that of the data, in units of it."""
    found, data = variance(model, sampler, Grid(steps).times(model.process, True))
    return abs(found.sum() / data.sum() - 1).item()


def test_a_blur_that_is_wide_beside_the_field_takes_a_flow_100_steps_and_not_20():
    model = gaussian_model("blurring")
    assert error(model, ancestral, 20) < 1e-9
    assert error(model, multistep, 20) > 0.4 and error(model, multistep, 100) < 0.02


def test_a_map_that_jumps_has_no_flow_and_ancestral_steps_are_exact():
    model = gaussian_model("scale_space")
    assert error(model, ancestral, 20) < 1e-9
    assert error(model, multistep, 20) > 0.25 and error(model, multistep, 100) > 0.25
