"""forward=variance_exploding: the noises of its levels, and the heat kernel on densities of images."""

import math

import pytest
import torch
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.variance_exploding import VarianceExploding

SHAPE = (2, 6, 9)


def field(batch=3):
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_noises_of_the_levels_are_0_and_then_evenly_spaced_in_log():
    process = VarianceExploding(SHAPE, num_levels=100, sigma_min=0.01, sigma_max=20)
    noises = process.std(process.times).flatten()
    assert noises[0] == 0
    assert noises[1].item() == pytest.approx(0.01, rel=1e-12)
    assert noises[-1].item() == pytest.approx(20, rel=1e-12)
    assert (noises[2:] / noises[1:-1]).tolist() == pytest.approx([2000 ** (1 / 99)] * 99, rel=1e-12)


def test_by_default_the_noise_grows_from_a_hundredth_to_twenty():
    process = VarianceExploding(SHAPE)
    assert process.num_levels == 100
    assert process.std(process.times[[1, -1]]).flatten().tolist() == pytest.approx([0.01, 20], rel=1e-12)


def test_the_clock_is_half_the_variance():
    process, eps = VarianceExploding(SHAPE), field()
    assert_close(process.std(column(0, 0.125, 200)).flatten(), column(0, 0.5, 20), atol=1e-14, rtol=0)
    noise = process.scale_coefficients(eps, process.std(column(0, 0.125, 200)))
    assert_close(noise, torch.stack([0 * eps[0], 0.5 * eps[1], 20 * eps[2]]), atol=1e-13, rtol=0)


def test_the_image_itself_stays():
    process, u0 = VarianceExploding(SHAPE), field()
    assert torch.equal(process.mean(u0, process.times[[0, 50, 100]]), u0)


@pytest.mark.parametrize(("s", "t"), [(0.0, 0.3), (0.3, 0.8), (2.0, 2.0), (1.0, 200.0)])
def test_a_step_adds_exactly_the_missing_variance(s, t):
    process, u, eps = VarianceExploding(SHAPE), field(), torch.ones(3, *SHAPE, dtype=torch.float64)
    s, t = column(s).repeat(3), column(t).repeat(3)
    added = (2 * (t - s)).sqrt()
    assert_close(process.step(u, s, t, eps), u + process.column(added), atol=1e-7, rtol=0)
    assert_close(process.std(s) ** 2 + process.column(added) ** 2, process.std(t) ** 2, atol=1e-12, rtol=0)


def test_as_an_sde_it_has_no_drift_and_a_constant_diffusion():
    process, u, t = VarianceExploding(SHAPE), field(), column(1e-4, 0.3, 200)
    assert not process.drift(u, t).any()
    assert process.diffusion(t).flatten().tolist() == pytest.approx([math.sqrt(2)] * 3, rel=1e-12)


def test_the_density_of_images_solves_the_heat_equation():
    process, images = VarianceExploding((1, 1, 1)), column(0.1, 0.35, 0.9)

    def density(x, t):
        times = column(t).expand(len(images))
        means = process.mean(images[:, None, None, None], times).flatten()
        return torch.distributions.Normal(means, process.std(times).flatten()).log_prob(x[:, None]).exp().mean(1)

    x, t, h = torch.linspace(-1, 2, 31, dtype=torch.float64), 0.05, 1e-4
    slope = (density(x, t + h) - density(x, t - h)) / (2 * h)
    laplacian = (density(x + h, t) - 2 * density(x, t) + density(x - h, t)) / h**2
    assert slope.abs().max() > 1
    assert_close(slope, laplacian, atol=1e-3, rtol=0)


def test_a_wrong_value_is_refused_by_the_name_of_its_key():
    for key, values in [
        ("sigma_min", {"sigma_min": 0}),
        ("sigma_min", {"sigma_min": "small"}),
        ("sigma_max", {"sigma_max": -1}),
        ("sigma_max", {"sigma_max": None}),
        ("sigma_max", {"sigma_max": 0.01}),
        ("sigma_max", {"sigma_min": 2, "sigma_max": 1}),
        ("num_levels", {"num_levels": 1}),
        ("num_levels", {"num_levels": "many"}),
    ]:
        with pytest.raises(ConfigError, match=rf"^forward\.{key} must be"):
            VarianceExploding(SHAPE, **values)
