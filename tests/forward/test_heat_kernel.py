"""forward=heat_kernel: its clocks, their noise and the heat equation of its densities."""

import math

import pytest
import torch
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.heat_kernel import HeatKernel
from heatgen.forward.variance_exploding import VarianceExploding

SHAPES = [(1, 1, 1), (1, 1, 7), (3, 4, 6)]
CLOCKS = [
    {"clock": "exponential"},
    {"clock": "exponential", "sigma": 25.0},
    {"clock": "exponential", "sigma": 0.5, "end": 3.0},
    {"clock": "exponential", "sigma": 1.0},
    {"clock": "geometric"},
    {"clock": "geometric", "end": 2.0, "sigma_max": 3.0},
    {"clock": "constant", "diffusivity": 0.7},
]


def at(*times):
    return torch.tensor(times, dtype=torch.float64)


def test_the_noise_of_the_first_examples():
    """sigma(1), sigma(.5), sigma(.1), sigma(.01) of the exponential clock of 1.1, to six figures."""
    std = HeatKernel((1, 1, 1)).std(at(1, 0.5, 0.1, 0.01)).flatten()
    assert std.tolist() == pytest.approx([1.049603, 0.724295, 0.317741, 0.100048], abs=5e-7)


@pytest.mark.parametrize("options", CLOCKS)
def test_the_variance_is_the_integral_of_the_squared_diffusion(options):
    process = HeatKernel((1, 1, 1), **options)
    for end in (0.3 * process.end, process.end):
        s = torch.linspace(0, end, 20_001, dtype=torch.float64)
        integral = torch.trapezoid(process.diffusion(s).flatten() ** 2, s)
        assert process.std(at(end)).item() ** 2 == pytest.approx(integral.item(), rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("options", CLOCKS)
def test_the_diffusion_is_what_the_law_derives_from_the_noise(options):
    process = HeatKernel((1, 1, 1), **options)
    t = at(0.2, 0.9) * process.end
    derived = super(HeatKernel, process).diffusion(t)
    assert_close(process.diffusion(t), derived, atol=0, rtol=1e-9)
    assert not process.drift(torch.ones(2, 1, 1, 1).double(), t).any()


@pytest.mark.parametrize("shape", SHAPES)
def test_fields_of_any_shape_keep_their_mean_and_get_white_noise(shape):
    process = HeatKernel(shape, 10)
    u0 = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    eps = torch.ones_like(u0)
    assert torch.equal(process.mean(u0, at(0.0, 0.5)), u0)
    assert_close(process.perturb(u0, at(0.5, 1.0), eps)[1] - u0[1], 1.0496028592577253 * eps[1])
    process.validate()


@pytest.mark.parametrize("options", CLOCKS)
def test_steps_add_up_to_the_whole(options):
    process = HeatKernel((1, 1, 1), **options)
    s, m, t = (x * process.end for x in (at(0.2), at(0.5), at(0.9)))
    parts = process.step_std(s, m) ** 2 + process.step_std(m, t) ** 2
    assert_close(parts, process.std(t) ** 2 - process.std(s) ** 2, rtol=1e-9, atol=0)


def test_geometric_noise_ends_at_its_largest_but_for_the_smallest():
    process = HeatKernel((1, 1, 1), clock="geometric", sigma_min=0.02, sigma_max=5.0, end=0.7)
    assert process.std(at(0.7)).item() == pytest.approx(math.sqrt(5**2 - 0.02**2), rel=1e-12)


def test_a_constant_diffusivity_of_one_is_variance_exploding():
    kernel, other = HeatKernel((1, 2, 2), clock="constant", diffusivity=1.0), VarianceExploding((1, 2, 2))
    assert_close(kernel.std(at(0.1, 3.0)), other.std(at(0.1, 3.0)))


def test_a_density_spreads_by_the_heat_equation():
    """dp/dt = g^2 / 2 d2p/dx2 for p the normal density of variance sigma(t)^2, by finite differences."""
    process, t, x, h = HeatKernel((1, 1, 1)), 0.6, torch.linspace(-3, 3, 13, dtype=torch.float64), 1e-4

    def density(t, x):
        std = process.std(at(t)).item()
        return (-(x**2) / (2 * std**2)).exp() / (std * math.sqrt(2 * math.pi))

    left = (density(t + h, x) - density(t - h, x)) / (2 * h)
    right = (density(t, x + h) - 2 * density(t, x) + density(t, x - h)) / h**2
    assert_close(left, process.diffusion(at(t)).item() ** 2 / 2 * right, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"clock": "linear"}, r"^forward\.clock must be one of exponential, geometric, constant"),
        ({"sigma": 0}, r"^forward\.sigma must be"),
        ({"end": -1}, r"^forward\.end must be"),
        ({"sigma_max": 0.001}, r"^forward\.sigma_max must be greater than forward\.sigma_min = 0\.01"),
        ({"diffusivity": 0}, r"^forward\.diffusivity must be "),
        ({"spacing": "cubic"}, r"^forward\.spacing must be one of uniform, log, quadratic"),
        ({"num_levels": 0}, r"^forward\.num_levels must be"),
    ],
)
def test_what_is_out_of_range_is_refused_by_key(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        HeatKernel((1, 1, 1), **options)
