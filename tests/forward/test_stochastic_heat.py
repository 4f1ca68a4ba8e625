"""forward=stochastic_heat against closed forms, conservation laws, quadrature, and a finite-difference solver."""

import itertools
import math

import pytest
import torch
from gaussian_toys import at, wave_numbers
from scipy.integrate import quad
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.stochastic_heat import StochasticHeat, accumulated, finite_differences

N = 32
SHAPE = (1, N, N)
SCHEMES = ["exact", "euler_maruyama"]


def wave(ky, kx, height=N, width=N):
    """cos(k.x) on the box of length 2 pi, (1, 1, H, W)."""
    y, x = (2 * math.pi * torch.arange(n, dtype=torch.float64) / n for n in (height, width))
    return (ky * y[:, None] + kx * x).cos()[None, None]


def random_field(shape=SHAPE, batch=2, seed=0):
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def variance(process, t):
    return process.std(at(t))[0, 0] ** 2


# the mean ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(32, 32), (6, 9), (16, 5)])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_a_wave_decays_by_its_wave_number_squared(height, width, alpha):
    process = StochasticHeat((1, height, width), alpha=alpha)
    for ky, kx in [(1, 0), (0, 2), (2, -1), (3, 2)]:
        u0 = wave(ky, kx, height, width)
        for t in (0.0, 0.013, 0.2):
            expected = math.exp(-alpha * (ky**2 + kx**2) * t) * u0
            assert_close(process.mean(u0, at(t)), expected, atol=1e-12, rtol=0)


def test_two_times_in_a_row_are_their_sum():
    process, u0 = StochasticHeat((2, 6, 9)), random_field((2, 6, 9))
    for a, b in [(0.01, 0.03), (0.1, 0.1), (1e-5, 0.19)]:
        twice = process.mean(process.mean(u0, at(a, 2)), at(b, 2))
        assert_close(twice, process.mean(u0, at(a + b, 2)), atol=1e-13, rtol=0)
        assert_close(process.ratio(at(a), at(a + b)), process.gain(at(b)), atol=1e-15, rtol=1e-13)


def test_the_mean_over_all_pixels_is_conserved():
    process, u0 = StochasticHeat((2, 6, 9)), random_field((2, 6, 9))
    for t in (0.001, 0.2, 50.0):
        assert_close(process.mean(u0, at(t, 2)).mean((2, 3)), u0.mean((2, 3)), atol=1e-15, rtol=0)
    assert_close(process.mean(u0, at(50.0, 2)), u0.mean((2, 3), keepdim=True).expand_as(u0), atol=1e-15, rtol=0)


def test_the_box_is_the_same_whatever_the_number_of_pixels():
    fine, coarse, t = StochasticHeat((1, 64, 64)), StochasticHeat((1, 16, 16)), at(0.07)
    u64 = wave(1, 2, 64, 64) - 0.4 * wave(5, -3, 64, 64) + 0.1
    u16 = wave(1, 2, 16, 16) - 0.4 * wave(5, -3, 16, 16) + 0.1
    assert_close(fine.mean(u64, t)[..., ::4, ::4], coarse.mean(u16, t), atol=1e-13, rtol=0)
    shared = [0, 1, 2, 3, -3, -2, -1]
    waves = [process.std(t)[0, 0][shared][:, shared] for process in (fine, coarse)]
    assert_close(*waves, atol=0, rtol=1e-14)


def test_the_drift_of_a_wave_is_its_laplacian_and_the_noise_is_white_in_time():
    process = StochasticHeat(SHAPE, alpha=0.5, g=0.3)
    u, t = wave(3, -1), at(0.1)
    assert_close(process.drift(u, t), -0.5 * 10 * u, atol=1e-12, rtol=0)
    assert process.diffusion(t).flatten().tolist() == [0.3]


def test_a_step_is_defined_where_both_gains_underflow():
    process = StochasticHeat((1, 64, 64), end=10.0)
    assert (process.gain(at(9.0)) == 0).any()
    k2 = wave_numbers(64, 64)
    assert_close(process.ratio(at(9.0), at(9.001))[0, 0], (-0.001 * k2).exp(), atol=0, rtol=1e-9)


# the noise ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scheme", "expected"), [("exact", 8.322e-5), ("euler_maruyama", 1.239e-4)])
def test_the_mean_noise_a_pixel_at_the_end_is_the_known_number(scheme, expected):
    assert variance(StochasticHeat(SHAPE, scheme=scheme), 0.2).mean().item() == pytest.approx(expected, rel=2e-4)


@pytest.mark.parametrize(("ky", "kx"), [(0, 0), (1, 0), (3, 4), (-16, -16)])
@pytest.mark.parametrize("alpha", [1.0, 0.3])
def test_the_exact_noise_is_the_integral_of_what_each_moment_leaves(ky, kx, alpha):
    process, rate = StochasticHeat(SHAPE, alpha=alpha, g=0.4), alpha * (ky**2 + kx**2)
    for s, t in [(0.0, 0.2), (0.0, 1e-4), (0.03, 0.11), (0.1999, 0.2)]:
        left = quad(lambda r: math.exp(-2 * rate * (t - r)), s, t, epsabs=0, epsrel=1e-12)[0]
        assert process.step_std(at(s), at(t))[0, 0, ky, kx].item() ** 2 == pytest.approx(0.16 * left, rel=1e-9, abs=1e-17)


def test_the_noise_of_a_short_time_is_white_with_its_length_as_the_variance_of_each_pixel():
    process = StochasticHeat(SHAPE, g=0.2)
    assert_close(variance(process, 1e-9), torch.full((N, N), 0.04e-9, dtype=torch.float64), atol=0, rtol=1e-6)
    first = StochasticHeat(SHAPE, g=0.2, scheme="euler_maruyama").times[1].item()
    discrete = variance(StochasticHeat(SHAPE, g=0.2, scheme="euler_maruyama"), first)
    assert_close(discrete, torch.full((N, N), 0.04 * first, dtype=torch.float64), atol=0, rtol=1e-12)


def test_without_g_there_is_no_noise():
    process, u0 = StochasticHeat((1, 6, 9), g=0.0), random_field((1, 6, 9))
    assert torch.equal(process.perturb(u0, at(0.1, 2)), process.mean(u0, at(0.1, 2)))


@pytest.mark.parametrize("steps", [1, 7, 32])
def test_the_discretised_noise_is_the_recursion_of_its_steps(steps):
    process = StochasticHeat(SHAPE, 16, g=0.3, scheme="euler_maruyama", euler_steps=steps)
    dt, q = 0.2 / steps, torch.zeros(N, N, dtype=torch.float64)
    decay = (-2 * dt * wave_numbers(N, N)).exp()
    for m in range(1, steps + 1):
        q = decay * q + 0.09 * dt
        assert_close(variance(process, m * dt), q, atol=0, rtol=1e-11)


@pytest.mark.parametrize(("index", "ratio"), [((0, 1), 1.006), ((3, 4), 1.164), ((0, 16), 3.34), ((16, 16), 6.41)])
def test_the_discretised_variance_is_too_large_by_the_known_ratio(index, ratio):
    exact, discrete = (variance(StochasticHeat(SHAPE, scheme=scheme), 0.2)[index].item() for scheme in SCHEMES)
    u = 2 * (index[0] ** 2 + index[1] ** 2) * 0.2 / 32
    assert discrete / exact == pytest.approx(u / -math.expm1(-u), rel=1e-10)
    assert discrete / exact == pytest.approx(ratio, rel=2e-3)


def test_the_discretised_variance_converges_with_first_order():
    k2, errors = wave_numbers(8, 8), []
    for steps in (200, 400, 800):
        exact, discrete = (StochasticHeat((1, 8, 8), scheme=scheme, euler_steps=steps) for scheme in SCHEMES)
        errors.append((variance(discrete, 0.2) - variance(exact, 0.2))[k2 > 0])
    assert (errors[2] > 0).all()
    for coarse, fine in itertools.pairwise(errors):
        assert_close((coarse / fine).log2(), torch.ones_like(fine), atol=0.03, rtol=0)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("spacing", ["uniform", "log", "quadratic"])
def test_the_noises_of_a_chain_of_steps_add_up_to_that_of_the_law(scheme, spacing):
    process = StochasticHeat((1, 6, 9), 11, spacing=spacing, scheme=scheme)
    total = torch.zeros(6, 9, dtype=torch.float64)
    for s, t in zip(process.times[:-1], process.times[1:], strict=True):
        added = process.step_std(s[None], t[None])[0, 0] ** 2
        assert (added > 0).all()
        total = process.ratio(s[None], t[None])[0, 0] ** 2 * total + added
        assert_close(total, variance(process, t.item()), atol=0, rtol=1e-11)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_simulated_chain_has_the_variance_of_the_law_in_every_mode(scheme):
    process, n = StochasticHeat((1, 6, 9), 8, g=0.5, scheme=scheme), 4000
    u, generator = torch.zeros(n, 1, 6, 9, dtype=torch.float64), torch.Generator().manual_seed(1)
    for s, t in zip(process.times[:-1], process.times[1:], strict=True):
        eps = torch.randn(u.shape, generator=generator, dtype=u.dtype)
        u = process.step(u, s.expand(n), t.expand(n), eps)
    z = (process.basis(u).square().mean(0)[0] / variance(process, 0.2) - 1) / math.sqrt(2 / n)
    assert z.abs().max() < 4.5
    assert z.square().mean().item() == pytest.approx(1, abs=6 * math.sqrt(2 / z.numel()))


def coupled(k2, dt):
    """The variance of the exact step less the discretised one on the same Brownian path, g = 1, by wave number squared."""
    w = k2 * dt
    return (1 - math.exp(-2 * w)) / (2 * k2) - 2 * (1 - math.exp(-w)) / k2 + dt


@pytest.mark.parametrize(("ky", "kx"), [(1, 0), (2, 1), (3, 3)])
def test_on_one_brownian_path_the_schemes_differ_by_the_known_variance_and_converge_with_first_order(ky, kx):
    k2, errors = ky**2 + kx**2, []
    for steps in (64, 128, 256):
        dt, total = 0.2 / steps, 0.0
        exact, discrete = (StochasticHeat((1, 8, 8), steps, g=1.0, scheme=scheme) for scheme in SCHEMES)
        q, q_exact = (p.step_std(at(0.1), at(0.1 + dt))[0, 0, ky, kx].item() ** 2 for p in (discrete, exact))
        common = quad(lambda r: math.exp(-k2 * (dt - r)), 0, dt, epsabs=0, epsrel=1e-13)[0]
        assert q + q_exact - 2 * common == pytest.approx(coupled(k2, dt), abs=1e-12)
        decay = exact.ratio(at(0.1), at(0.1 + dt))[0, 0, ky, kx].item()
        for _ in range(steps):
            total = decay**2 * total + coupled(k2, dt)
        errors.append(math.sqrt(total))
    assert [math.log2(a / b) for a, b in itertools.pairwise(errors)] == pytest.approx([1, 1], abs=0.03)


def test_chains_of_steps_on_shared_increments_differ_by_the_closed_form_of_their_coarseness():
    """Coarse chains against one of 512 steps, whose own error is 1/64 of the coarsest."""
    n, fine = 200, 512
    generator = torch.Generator().manual_seed(2)
    increments = torch.randn(fine, n, 1, 6, 6, generator=generator, dtype=torch.float64)
    ends = {}
    for steps in (8, 16, fine):
        process = StochasticHeat((1, 6, 6), steps, g=1.0, scheme="euler_maruyama")
        white = increments.reshape(steps, fine // steps, n, 1, 6, 6).sum(1) / math.sqrt(fine // steps)
        u = torch.zeros(n, 1, 6, 6, dtype=torch.float64)
        for m in range(steps):
            u = process.step(u, process.times[m : m + 1], process.times[m + 1 : m + 2], white[m])
        ends[steps] = process.basis(u)
    k2 = wave_numbers(6, 6)
    for steps in (8, 16):
        dt = 0.2 / steps
        error = (ends[steps] - ends[fine]).square().mean(0)[0]
        for y, x in [(0, 1), (1, 1), (2, 1), (3, 0), (3, 3)]:
            k, decay = k2[y, x].item(), math.exp(-k2[y, x].item() * dt)
            expected = coupled(k, dt) * (1 - decay ** (2 * steps)) / (1 - decay**2)
            assert error[y, x].item() == pytest.approx(expected, rel=4.5 * math.sqrt(2 / n) + 0.03)


def test_levels_between_the_discretised_steps_are_part_of_the_same_markov_chain():
    process = StochasticHeat((1, 6, 9), 5, scheme="euler_maruyama", euler_steps=8)
    r, s, t = at(0.031), at(0.0777), at(0.19)
    whole = process.step_std(r, t) ** 2
    parts = (process.ratio(s, t) * process.step_std(r, s)) ** 2 + process.step_std(s, t) ** 2
    assert_close(whole, parts, atol=0, rtol=1e-11)


def test_the_accumulated_decay_is_the_time_itself_for_modes_that_do_not_decay():
    rates, t = torch.tensor([0.0, 1e-13, 2.0], dtype=torch.float64), torch.tensor(0.3, dtype=torch.float64)
    assert accumulated(rates, t).tolist() == pytest.approx([0.3, 0.3, -math.expm1(-1.2) / 4], rel=1e-11)


# levels and options ------------------------------------------------------------------------------------------------------


def test_the_levels_are_spaced_as_asked():
    k = [i / 5 for i in range(6)]
    formulas = {
        "uniform": [0.4 * x for x in k],
        "quadratic": [0.4 * x * x for x in k],
        "log": [0.4 * math.log(1 + 4 * x) / math.log(5) for x in k],
    }
    for spacing, expected in formulas.items():
        assert StochasticHeat((1, 4, 4), 5, end=0.4, spacing=spacing).times.tolist() == pytest.approx(expected, abs=1e-15)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"num_levels": 0}, r"forward\.num_levels must be"),
        ({"end": 0.0}, r"forward\.end must be"),
        ({"alpha": 0}, r"forward\.alpha must be"),
        ({"g": -0.1}, r"forward\.g must be"),
        ({"spacing": "cubic"}, r"forward\.spacing must be one of uniform, log, quadratic, not 'cubic'"),
        ({"scheme": "euler"}, r"forward\.scheme must be one of exact, euler_maruyama.*did you mean euler_maruyama\?"),
        ({"euler_steps": 0}, r"forward\.euler_steps must be"),
        ({"shape": (1, 0, 4)}, r"data\.shape must be"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name(option, message):
    with pytest.raises(ConfigError, match=message):
        StochasticHeat(**{"shape": (1, 4, 4)} | option)


# the second solver -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("height", "width"), [(16, 16), (6, 10)])
def test_finite_differences_multiply_each_wave_by_the_stencils_own_factor(height, width):
    h = [2 * math.pi / size for size in (height, width)]
    for ky, kx in [(0, 0), (1, 0), (2, 3)]:
        u = wave(ky, kx, height, width)
        rate = sum((2 * math.sin(k * step / 2) / step) ** 2 for k, step in zip((ky, kx), h, strict=True))
        expected = (1 - 0.7 * 0.1 / 40 * rate) ** 40 * u
        assert_close(finite_differences(u, 0.1, alpha=0.7, steps=40), expected, atol=1e-13, rtol=0)


def test_finite_differences_approach_the_exact_solution_with_second_order_in_the_grid():
    errors, t = [], 0.9999 * (2 * math.pi / 16) ** 2 / 0.8  # 8, 32, 128 steps
    for size in (16, 32, 64):
        u0 = wave(1, 0, size, size) + 0.5 * wave(2, 1, size, size) - 0.2 * wave(1, -3, size, size)
        exact = StochasticHeat((1, size, size), alpha=0.8).mean(u0, at(t))
        errors.append((finite_differences(u0, t, alpha=0.8) - exact).abs().max().item())
    assert errors[-1] < 1e-3
    assert [math.log2(a / b) for a, b in itertools.pairwise(errors)] == pytest.approx([2, 2], abs=0.15)


def test_finite_differences_conserve_the_mean_and_create_no_new_extremes():
    u0 = random_field((1, 7, 12))
    u = finite_differences(u0, 0.3)
    assert_close(u.mean((2, 3)), u0.mean((2, 3)), atol=1e-14, rtol=0)
    assert (u.amax((2, 3)) < u0.amax((2, 3))).all() and (u.amin((2, 3)) > u0.amin((2, 3))).all()


def test_finite_differences_refuse_steps_that_would_grow_and_take_the_least_that_would_not():
    checkers = wave(8, 8, 16, 16)
    t = 10 * (2 * math.pi / 16) ** 2 / 4  # ten steps of the largest stable size
    assert_close(finite_differences(checkers, 0.9999 * t, steps=10).abs().max().item(), 0.9998**10, atol=1e-3, rtol=0)
    with pytest.raises(ValueError, match="9 explicit steps are unstable here; take at least 10"):
        finite_differences(checkers, 0.9999 * t, steps=9)
    with pytest.raises(ValueError, match="unstable"):
        finite_differences(checkers, 1.5 * t, steps=10)


# noise by pixel or by area -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", SCHEMES)
def test_noise_per_area_is_the_same_physics_on_every_grid_and_per_pixel_is_not(scheme):
    """The amplitude of cos(x) has the noise L sqrt(2 / (H W)): that of one coefficient in the wave's own unit."""

    def amplitudes(noise_per):
        processes = [StochasticHeat((1, n, n), noise_per=noise_per, scheme=scheme) for n in (16, 32, 64)]
        return [p.std(at(0.2))[0, 0, 0, 1].item() * math.sqrt(2 / p.shape[-1] ** 2) for p in processes]

    by_area, by_pixel = amplitudes("area"), amplitudes("pixel")
    assert by_area == pytest.approx([by_pixel[1]] * 3, rel=1e-12)
    assert by_pixel == pytest.approx([2 * by_pixel[1], by_pixel[1], by_pixel[1] / 2], rel=1e-12)
    assert torch.equal(StochasticHeat(SHAPE, noise_per="area").std(at(0.1)), StochasticHeat(SHAPE).std(at(0.1)))
    fine = StochasticHeat((1, 64, 64), noise_per="area")
    assert fine.diffusion(at(0.1)).item() == 0.2  # g dW of a pixel of a quarter of the area
    with pytest.raises(ConfigError, match=r"forward\.noise_per must be one of pixel, area"):
        StochasticHeat(SHAPE, noise_per="volume")
