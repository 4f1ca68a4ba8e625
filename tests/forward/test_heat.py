"""forward=heat against closed forms, the heat equation itself and SciPy's Gaussian filter."""

import math

import pytest
import scipy.fft
import scipy.ndimage
import torch
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.heat import Heat

SIZES = [(12, 12), (9, 14), (7, 5)]


def field(height, width, dtype=torch.float64, seed=0):
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def at(t, batch=2):
    return torch.full((batch,), t, dtype=torch.float64)


def blur(u, t):
    return Heat(u.shape[1:]).mean(u, at(t, len(u)))


@pytest.mark.parametrize("t", [0.125, 3.0, 60.0])
@pytest.mark.parametrize("size", SIZES)
def test_heat_conserves_the_mean_of_every_channel(size, t):
    u = field(*size, torch.float32)
    assert_close(blur(u, t).mean((-2, -1)), u.mean((-2, -1)), atol=1e-6, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_level_0_is_the_image_itself(size):
    u = field(*size, torch.float32)
    assert_close(blur(u, 0.0), u, atol=5e-7, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_heat_ends_in_the_constant_mean_image(size):
    u = field(*size)
    assert_close(blur(u, 1e6), u.mean((-2, -1), keepdim=True).expand_as(u), atol=1e-13, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_heat_is_a_semigroup(size):
    u = field(*size)
    assert_close(blur(blur(u, 3.0), 5.0), blur(u, 8.0), atol=1e-13, rtol=0)
    assert_close(blur(blur(u, 5.0), 3.0), blur(u, 8.0), atol=1e-13, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_heat_is_self_adjoint(size):
    u, v = field(*size), field(*size, seed=1)
    assert_close((blur(u, 0.6) * v).sum(), (u * blur(v, 0.6)).sum(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_energy_outside_the_mean_falls_at_every_level(size):
    process, u = Heat((3, *size), num_levels=12), field(*size)
    states = torch.stack([process.mean(u, t.expand(2)) for t in process.times])
    energy = (states - u.mean((-2, -1), keepdim=True)).square().sum((-2, -1))
    assert (energy.diff(dim=0) < 0).all()


def test_a_point_of_heat_on_two_by_two_pixels_has_its_closed_form():
    u = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64)
    expected = torch.tensor([[[[0.545389, 0.193116], [0.193116, 0.068380]]]], dtype=torch.float64)
    assert_close(blur(u, 0.3), expected, atol=5e-7, rtol=0)


@pytest.mark.parametrize("t", [0.01, 0.3, 1.7])
def test_a_point_of_heat_spreads_by_the_product_of_its_walls(t):
    u = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64)
    a = math.exp(-(math.pi**2) * t / 4)
    expected = [[(1 + a) ** 2 / 4, (1 - a**2) / 4], [(1 - a**2) / 4, (1 - a) ** 2 / 4]]
    assert_close(blur(u, t), torch.tensor([[expected]], dtype=torch.float64), atol=1e-14, rtol=0)


@pytest.mark.parametrize(("n", "m"), [(0, 0), (1, 0), (0, 1), (3, 2), (2, 7), (8, 13)])
def test_a_cosine_of_a_rectangle_decays_at_its_own_rate(n, m):
    height, width, t = 9, 14, 0.21
    i, j = torch.arange(height).double()[:, None], torch.arange(width).double()[None, :]
    u = ((math.pi * (i + 0.5) * n / height).cos() * (math.pi * (j + 0.5) * m / width).cos())[None, None]
    decay = math.exp(-(math.pi**2) * (n**2 / height**2 + m**2 / width**2) * t)
    assert_close(blur(u, t), decay * u, atol=1e-14, rtol=0)


@pytest.mark.parametrize("size", SIZES)
def test_heat_solves_the_heat_equation(size):
    u, t, dt = field(*size), 2.0, 1e-3
    n, m = torch.meshgrid(*[torch.arange(length).double() / length for length in size], indexing="ij")
    modes = scipy.fft.dctn(blur(u, t).numpy(), norm="ortho", axes=(-2, -1))
    laplacian = scipy.fft.idctn(-(math.pi**2) * (n**2 + m**2).numpy() * modes, norm="ortho", axes=(-2, -1))
    slope = (blur(u, t + dt) - blur(u, t - dt)) / (2 * dt)
    assert_close(slope, torch.from_numpy(laplacian), atol=1e-7, rtol=0)


@pytest.mark.parametrize("width", [2.0, 3.3, 6.0])
@pytest.mark.parametrize("size", [(32, 32), (20, 33)])
def test_wide_blurs_are_the_gaussian_filter_of_scipy(size, width):
    u = field(*size)
    expected = scipy.ndimage.gaussian_filter(u.numpy(), width, mode="reflect", truncate=9, axes=(-2, -1))
    assert_close(blur(u, width**2 / 2), torch.from_numpy(expected), atol=1e-9, rtol=0)


@pytest.mark.parametrize(("size", "largest"), [((28, 28), 21.0), ((20, 33), 24.75), ((33, 20), 24.75)])
def test_the_widest_blur_is_three_quarters_of_the_longer_side(size, largest):
    assert Heat((1, *size)).times[-1].item() == pytest.approx(largest**2 / 2, rel=1e-12)


def test_a_wrong_value_is_refused_by_the_name_of_its_key():
    for key, values in [
        ("forward.sigma_max", {"sigma_max": 0.5}),
        ("forward.sigma_max", {"sigma_max": 0.4, "sigma_min": 0.5}),
        ("forward.sigma_max", {"sigma_max": -3}),
        ("forward.sigma_max", {"sigma_max": "wide"}),
        ("forward.sigma_max", {"sigma_max": math.nan}),
        ("forward.sigma_min", {"sigma_min": 0}),
        ("forward.sigma_min", {"sigma_min": None}),
        ("forward.num_levels", {"num_levels": "abc"}),
        ("forward.num_levels", {"num_levels": 1}),
        ("forward.num_levels", {"num_levels": 10.5}),
        ("forward.num_levels", {"num_levels": True}),
        ("forward.sigma", {"sigma": -0.01}),
        ("forward.sigma", {"sigma": math.inf}),
        ("data.shape", {"shape": "1x28x28"}),
        ("data.shape", {"shape": [1, 28, 0]}),
    ]:
        with pytest.raises(ConfigError, match=rf"^{key} must"):
            Heat(**{"shape": (1, 28, 28), **values})


@pytest.mark.parametrize(("s", "t"), [(0.0, 0.125), (0.125, 0.4), (2.0, 2.0), (3.0, 11.0)])
def test_a_step_carries_the_moments_of_level_s_to_those_of_level_t(s, t):
    process, u0 = Heat((3, 9, 14), sigma=0.2), field(9, 14)
    s, t, zero = at(s), at(t), torch.zeros_like(u0)
    assert_close(process.step(process.mean(u0, s), s, t, zero), process.mean(u0, t), atol=1e-13, rtol=0)
    every_mode = process.basis.inverse(torch.ones_like(u0))
    q = process.basis(process.step(zero, s, t, every_mode))
    variance = process.ratio(s, t) ** 2 * process.std(s) ** 2 + q**2
    assert_close(variance, (process.std(t) ** 2).expand_as(variance), atol=1e-14, rtol=0)


def test_the_ratio_of_late_levels_survives_the_underflow_of_their_gains():
    process = Heat((1, 16, 16), sigma_max=64)
    s, t = at(2000.0), at(2000.1)
    assert (process.gain(s) == 0).any()
    assert_close(process.ratio(s, t), (-process.eigenvalues * 0.1).exp().expand(2, 1, 16, 16), atol=1e-9, rtol=0)


def test_the_drift_is_the_laplacian_and_the_diffusion_keeps_the_noise_level():
    process, u, t = Heat((3, 9, 14), sigma=0.2), field(9, 14), at(2.0)
    eigenvalues = process.eigenvalues
    assert_close(process.drift(u, t), process.basis.inverse(-eigenvalues * process.basis(u)), atol=1e-12, rtol=0)
    assert_close(process.diffusion(t) ** 2, (2 * 0.2**2 * eigenvalues).expand(2, 1, 9, 14), atol=1e-13, rtol=0)


def test_an_increment_is_the_time_integral_of_the_drift():
    process, u, s, t = Heat((3, 9, 14)), field(9, 14), 0.4, 0.9
    exact = process.increment(u, at(s), at(t))
    assert_close(exact, blur(u, t - s) - u, atol=1e-13, rtol=0)
    first_order = [(process.increment(u, at(s), at(s + h)) / h - process.drift(u, at(s))).abs().max() for h in (2e-4, 1e-4)]
    assert first_order[1] < 0.1
    assert first_order[0] / first_order[1] == pytest.approx(2, abs=0.01)


def test_a_narrow_blur_undershoots_and_is_not_clamped():
    point = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    point[..., 16, 16] = 1
    assert blur(point, 0.125).min().item() == pytest.approx(-0.0127, abs=2e-4)
