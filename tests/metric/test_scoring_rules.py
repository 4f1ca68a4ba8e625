"""Scores of draws, against brute force and closed forms."""

import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from heatgen.metric import scoring_rules


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


DRAWS, TRUTH = normal(5, 3, 2, 4, 6), normal(3, 2, 4, 6, seed=1)


def test_mse_is_the_mean_over_pixels_and_over_draws():
    expected = ((DRAWS - TRUTH).numpy() ** 2).mean((0, 2, 3, 4))
    assert scoring_rules.mse(DRAWS, TRUTH).tolist() == pytest.approx(expected, rel=1e-12)
    assert scoring_rules.mse(DRAWS[0], TRUTH).tolist() == pytest.approx(
        ((DRAWS[0] - TRUTH).numpy() ** 2).mean((1, 2, 3)), rel=1e-12
    )


def test_the_excess_of_the_mean_is_without_bias():
    """Of draws around mean + 0.3: 0.09, where |mean of the draws - mean|^2 would give 0.09 + 1/4 with 4 draws."""
    mean = normal(2000, 1, 3, 3)
    found = scoring_rules.excess_mse(mean + 0.3 + normal(4, 2000, 1, 3, 3, seed=1), mean)
    assert found.mean().item() == pytest.approx(0.09, abs=5 * found.std().item() / 2000**0.5)
    assert found.std().item() / 2000**0.5 < 0.01 and (found < 0).any()


def test_crps_is_the_one_of_all_pairs():
    x, y = DRAWS.numpy(), TRUTH.numpy()
    pairs = np.abs(x[:, None] - x[None]).sum((0, 1)) / (2 * 5 * 4)
    expected = (np.abs(x - y).mean(0) - pairs).mean((1, 2, 3))
    assert scoring_rules.crps(DRAWS, TRUTH).tolist() == pytest.approx(expected, rel=1e-12)
    assert scoring_rules.crps(DRAWS.flip(0), TRUTH).tolist() == pytest.approx(expected, rel=1e-12)


def test_crps_of_few_draws_is_without_bias():
    """The integral of (Phi(x) - [x > y])^2 over x, for standard normal draws and y = 0.7."""
    expected = integrate.quad(lambda x: (stats.norm.cdf(x) - (x > 0.7)) ** 2, -9, 9, points=[0.7])[0]
    found = scoring_rules.crps(normal(2, 40000, 1, 1, 1), torch.full((40000, 1, 1, 1), 0.7))
    assert found.mean().item() == pytest.approx(expected, abs=4 * found.std().item() / 200) and found.std() / 200 < 0.005


def test_crps_of_equal_draws_is_the_absolute_error():
    same = DRAWS[:1].expand(4, -1, -1, -1, -1)
    assert scoring_rules.crps(same, TRUTH).tolist() == pytest.approx(
        (DRAWS[0] - TRUTH).abs().flatten(1).mean(1).tolist(), rel=1e-12
    )


def test_energy_score_is_the_one_of_all_pairs():
    x, y = DRAWS.flatten(2).numpy(), TRUTH.flatten(1).numpy()
    near = np.linalg.norm(x - y, axis=2).mean(0)
    pairs = np.linalg.norm(x[:, None] - x[None], axis=3).sum((0, 1)) / (2 * 5 * 4)
    assert scoring_rules.energy_score(DRAWS, TRUTH).tolist() == pytest.approx((near - pairs) / 48**0.5, rel=1e-12)


def test_energy_score_of_one_pixel_is_its_crps():
    x, y = normal(6, 10, 1, 1, 1), normal(10, 1, 1, 1, seed=3)
    assert torch.allclose(scoring_rules.energy_score(x, y), scoring_rules.crps(x, y), rtol=1e-12)


def test_pit_is_the_rank_and_a_uniform_number():
    draws = torch.tensor([3.0, 1.0, 2.0]).reshape(3, 1, 1, 1, 1).expand(3, 1, 1, 1, 4)
    truth, uniform = torch.tensor([0.0, 1.5, 2.5, 9.0]).reshape(1, 1, 1, 4), torch.tensor([0.0, 0.5, 0.25, 0.75])
    assert scoring_rules.pit(draws, truth, uniform.reshape(1, 1, 1, 4)).flatten().tolist() == [
        0,
        1.5 / 4,
        2.25 / 4,
        3.75 / 4,
    ]


def test_pit_shares_the_ranks_of_equal_draws():
    draws = torch.tensor([0.0, 0.0, 1.0]).reshape(3, 1, 1, 1, 1)
    found = [
        scoring_rules.pit(draws, torch.zeros(1, 1, 1, 1), torch.full((1, 1, 1, 1), u)).item() for u in (0.0, 0.5, 1 - 2**-20)
    ]
    assert found == pytest.approx([0, 1.5 / 4, 3 / 4], abs=1e-5)  # ranks 0, 1 or 2 of 0 .. 3


@pytest.mark.parametrize("n", [2, 3, 16])
def test_pit_of_exact_draws_is_uniform_and_covers_what_it_says_however_few(n):
    transform = scoring_rules.pit(normal(n, 100, 1, 20, 20), normal(100, 1, 20, 20, seed=1), torch.rand(100, 1, 20, 20))
    assert stats.kstest(transform.flatten().numpy(), "uniform").pvalue > 1e-3
    for level in (0.5, 0.9, 0.95):
        found = scoring_rules.coverage(transform, level)
        assert found.shape == (100,) and found.mean().item() == pytest.approx(level, abs=0.01)
    histogram = scoring_rules.rank_histogram(transform, n)
    assert histogram.shape == (100, n + 1) and torch.allclose(histogram.sum(1), torch.ones(100).double())
    assert torch.allclose(histogram.mean(0), torch.full((n + 1,), 1 / (n + 1)).double(), atol=0.01)


@pytest.mark.parametrize(("percent", "least"), [(50, 3), (90, 19), (95, 39), (99, 199)])
def test_draws_without_spread_cover_nothing_from_the_least_number_on_and_something_below(percent, least):
    assert scoring_rules.least_draws(percent) == least
    truth, uniform = normal(100, 1, 20, 20, seed=1), torch.rand(100, 1, 20, 20)
    for n, expected in ((least, 0.0), (least - 1, 1 - (1 - percent / 100) * least / 2), (least + 1, 0.0)):
        draws = truth.mean() + 1e-9 * normal(n, 1, 1, 1, 1)
        found = scoring_rules.coverage(scoring_rules.pit(draws, truth, uniform), percent / 100).mean().item()
        assert found == pytest.approx(expected, abs=0.005 * (expected > 0))


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_draws_that_are_not_finite_have_no_pit_and_their_fields_no_coverage(lost):
    draws, truth = DRAWS.clone(), TRUTH
    draws[2, 1, 0, 3, 3] = lost
    transform = scoring_rules.pit(draws, truth, torch.rand(truth.shape))
    assert transform.isnan().sum() == 1 and transform[1, 0, 3, 3].isnan()
    assert scoring_rules.coverage(transform, 0.5).isnan().tolist() == [False, True, False]
    assert scoring_rules.rank_histogram(transform, 5).isnan().any(1).tolist() == [False, True, False]


def test_too_narrow_draws_cover_too_little_and_rank_at_the_ends():
    transform = scoring_rules.pit(0.3 * normal(9, 50, 1, 20, 20), normal(50, 1, 20, 20, seed=1), torch.rand(50, 1, 20, 20))
    assert scoring_rules.coverage(transform, 0.9).mean() < 0.75
    histogram = scoring_rules.rank_histogram(transform, 9).mean(0)
    assert histogram[0] > 0.25 and histogram[-1] > 0.25 and histogram[4] < 0.05


def test_identical_draws_are_told_from_others():
    draws = DRAWS.clone()
    draws[:, 1] = draws[:1, 1]
    draws[2, 1, 0, 0, 0] += 1e-9
    assert scoring_rules.identical(draws).tolist() == [0, 1, 0]
    draws[2, 1, 0, 0, 0] += 1e-4
    assert scoring_rules.identical(draws).tolist() == [0, 0, 0]


# spectra ----------------------------------------------------------------------------------------------------------------


def published(field):
    """Radial means of |fftshift(Re ifft2(f))| about (N/2, N/2), as the original code has them; radii 0, 1, ..."""
    waves = np.abs(np.fft.fftshift(np.real(np.fft.ifft2(field))))
    y, x = np.indices(waves.shape)
    r = np.sqrt((x - waves.shape[0] / 2) ** 2 + (y - waves.shape[1] / 2) ** 2).astype(int)
    return np.bincount(r.ravel(), waves.ravel()) / np.bincount(r.ravel())


def test_the_spectral_error_of_the_paper_is_that_of_its_code():
    draws, truth = normal(3, 2, 1, 32, 32), normal(2, 1, 32, 32, seed=1)
    expected = [
        np.mean([np.abs(np.log(published(truth[b, 0])) - np.log(published(draws[i, b, 0])))[1:11].mean() for i in range(3)])
        for b in range(2)
    ]
    assert scoring_rules.spectral_error(draws, truth, "paper").tolist() == pytest.approx(expected, rel=1e-12)


def test_a_field_of_one_wave_has_its_power_at_its_radius():
    x = torch.arange(16)
    wave = torch.cos(2 * math.pi * (3 * x[None, :] + 4 * x[:, None]).double() / 16)
    found = scoring_rules.power(wave[None, None], 8)[0]
    ring = int((scoring_rules.radii(16, 16) == 5).sum())
    assert found[4].item() * ring == pytest.approx(128, rel=1e-12)  # |u|^2, by Parseval
    assert found.sum().item() == pytest.approx(found[4].item(), rel=1e-12)


def test_power_of_white_noise_is_one_a_coefficient():
    found = scoring_rules.power(normal(400, 2, 12, 18), 6)
    assert torch.allclose(found.mean(0), torch.ones(6).double(), atol=0.1)


def test_the_error_of_the_power_is_blind_to_place_and_knows_the_scale():
    truth = normal(2, 3, 12, 12)
    draws = torch.stack([truth.roll((2, 5), (-2, -1)), 2 * truth])
    parts = [scoring_rules.spectral_error(draw[None], truth) for draw in draws]
    assert parts[0].abs().max() < 1e-12 and torch.allclose(parts[1], torch.full((2,), math.log(4)).double())
    assert torch.allclose(scoring_rules.spectral_error(draws, truth), torch.full((2,), math.log(4) / 2).double())
    assert torch.allclose(scoring_rules.spectral_error(draws[1:], truth, "paper"), torch.full((2,), math.log(2)).double())
    assert (scoring_rules.spectral_error(draws[:1], truth, "paper") > 0.1).all()


def test_rings_go_as_far_as_the_field_and_no_further_than_ten():
    assert [scoring_rules.count_radii(*size) for size in ((32, 32), (8, 8), (6, 40), (1, 5))] == [16, 4, 3, 1]
    assert scoring_rules.radii(4, 5).tolist() == [[2, 2, 2, 2, 2], [2, 1, 1, 1, 2], [2, 1, 0, 1, 2], [2, 1, 1, 1, 2]]
    truth = normal(1, 1, 32, 32)
    waves = torch.fft.fftshift(torch.fft.fft2(truth), dim=(-2, -1))
    high = torch.where(scoring_rules.radii(32, 32) > 10, 5 * waves, waves)  # other rings only
    draw = torch.fft.ifft2(torch.fft.ifftshift(high, dim=(-2, -1))).real
    assert scoring_rules.spectral_error(draw[None], truth).item() < 1e-12
    low = torch.where(scoring_rules.radii(32, 32) == 10, 5 * waves, waves)
    draw = torch.fft.ifft2(torch.fft.ifftshift(low, dim=(-2, -1))).real
    assert scoring_rules.spectral_error(draw[None], truth).item() == pytest.approx(math.log(25) / 10, rel=1e-9)


def test_a_blank_draw_is_a_large_error_and_a_finite_one():
    found = scoring_rules.spectral_error(torch.zeros(1, 1, 1, 8, 8), normal(1, 1, 8, 8))
    assert found.isfinite().all() and (found > 100).all()


def test_ring_sums_drop_what_lies_beyond():
    rings = torch.tensor([[0, 1], [2, 1]])
    assert scoring_rules.ring_sums(torch.tensor([[[1.0, 2.0], [4.0, 8.0]]]), rings, 2).tolist() == [[1, 10]]


# mixtures of Gaussians ----------------------------------------------------------------------------------------------------

MEANS, STDS, SEEN = normal(4, 3, 1, 2, 2, seed=2), 0.2 + normal(4, 3, 1, 2, 2, seed=3).abs(), normal(3, 1, 2, 2, seed=4)


def test_the_mean_distance_is_that_of_samples_and_of_the_integral():
    for mean, std in ((0.0, 1.0), (0.7, 0.3), (-2.0, 1.5), (40.0, 0.01)):
        wanted = integrate.quad(lambda x: abs(mean + std * x) * stats.norm.pdf(x), -12, 12, points=[-mean / std], limit=200)[
            0
        ]
        found = scoring_rules.mean_distance(torch.tensor(mean, dtype=torch.float64), torch.tensor(std, dtype=torch.float64))
        assert found.item() == pytest.approx(wanted, rel=1e-7)


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("block", [1, 5, 2**16])
def test_the_crps_of_a_mixture_is_the_integral_of_the_squared_gap_of_its_distribution(number, block, monkeypatch):
    monkeypatch.setattr(scoring_rules, "BLOCK", block)
    grid = torch.linspace(-12, 12, 200_001, dtype=torch.float64)[:, None]
    mean, std, y = MEANS[:number].reshape(number, 1, -1), STDS[:number].reshape(number, 1, -1), SEEN.reshape(1, -1)
    wanted = torch.zeros(12, dtype=torch.float64)
    for i in range(12):
        cdf = torch.special.ndtr((grid - mean[..., i : i + 1]) / std[..., i : i + 1]).mean(0)
        wanted[i] = torch.trapezoid((cdf - (grid >= y[:, i : i + 1]).double()).square(), grid, dim=0)
    found = scoring_rules.mixture_crps(MEANS[:number], STDS[:number], SEEN)
    assert found.tolist() == pytest.approx(wanted.reshape(3, 4).mean(1).tolist(), abs=2e-4)


def test_the_crps_of_one_gaussian_has_its_closed_form():
    z = (SEEN - MEANS[0]) / STDS[0]
    density, below = torch.distributions.Normal(0, 1).log_prob(z).exp(), torch.special.ndtr(z)
    wanted = STDS[0] * (z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi))
    found = scoring_rules.mixture_crps(MEANS[:1], STDS[:1], SEEN)
    assert found.tolist() == pytest.approx(wanted.flatten(1).mean(1).tolist(), rel=1e-12)
    assert scoring_rules.mixture_crps(MEANS[:1].expand(5, *SEEN.shape), STDS[:1].expand(5, *SEEN.shape), SEEN).tolist() == (
        pytest.approx(found.tolist(), rel=1e-12)
    )


def test_the_crps_of_a_mixture_is_that_of_many_of_its_samples():
    which = torch.randint(4, (20_000,), generator=torch.Generator().manual_seed(5))
    samples = MEANS[which] + STDS[which] * normal(20_000, *SEEN.shape, seed=6)
    wanted = scoring_rules.crps(samples, SEEN)
    assert scoring_rules.mixture_crps(MEANS, STDS, SEEN).tolist() == pytest.approx(wanted.tolist(), abs=0.02)


def test_the_pit_of_a_mixture_is_its_distribution_function_and_uniform_for_its_samples():
    found = scoring_rules.mixture_pit(MEANS, STDS, SEEN)
    wanted = stats.norm.cdf(SEEN.numpy(), MEANS.numpy(), STDS.numpy()).mean(0)
    assert found.numpy() == pytest.approx(wanted, rel=1e-12)
    which = torch.randint(4, (5000,), generator=torch.Generator().manual_seed(7))
    samples = MEANS[which] + STDS[which] * normal(5000, *SEEN.shape, seed=8)
    each = torch.stack([scoring_rules.mixture_pit(MEANS, STDS, y) for y in samples])
    assert stats.kstest(each[:, 1, 0, 1, 0].numpy(), "uniform").pvalue > 1e-3
    for level in (0.5, 0.9, 0.95):
        share = scoring_rules.coverage(each[:, 1, 0, 1, 0][None], level).item()
        assert share == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / 5000))


def test_a_histogram_has_the_shares_of_equal_parts():
    values = torch.tensor([[0.0, 0.1, 0.49, 1.0], [0.25, 0.26, 0.74, 0.75]])
    assert scoring_rules.histogram(values, 4).tolist() == [[0.5, 0.25, 0, 0.25], [0, 0.5, 0.25, 0.25]]
