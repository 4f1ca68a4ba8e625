"""The exact answers for Gaussian data against autograd, SciPy, brute-force matrices, simulation and known numbers."""

import math

import numpy as np
import pytest
import torch
from gaussian_toys import at, exact, gaussian, normal, power_law, wave_numbers
from scipy import stats
from scipy.fft import dct
from scipy.integrate import solve_ivp
from torch.testing import assert_close

from heatgen.basis import Cosine, Fourier
from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.levels import uniform
from heatgen.forward.process import ObservedProcess
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.oracle.gaussian import GaussianOracle

SHAPE = (1, 8, 8)
END = 0.2


class Falling(ObservedProcess):
    """u_t = (1 - t / 2) u_0 + t^2 + sigma eps."""

    def gain(self, t):
        return 1 - self.column(t) / 2

    def offset(self, t):
        return self.column(t) ** 2


def stochastic(shape=SHAPE, **options):
    return StochasticHeat(shape, 8, **options)


MAPS = {
    "stochastic_heat": lambda shape: (stochastic(shape), "periodic"),
    "euler_maruyama": lambda shape: (stochastic(shape, scheme="euler_maruyama"), "periodic"),
    "heat": lambda shape: (Heat(shape, 5, sigma=0.1), "neumann"),
    "heat_of_periodic_data": lambda shape: (Heat(shape, 5, sigma=0.1), "periodic"),
    "variance_exploding": lambda shape: (VarianceExploding(shape, 5), "neumann"),
    "constant_velocity": lambda shape: (ConstantVelocity(shape, 5, sigma=0.2), "periodic"),
    "falling": lambda shape: (Falling(shape, uniform(5), 0.3), "neumann"),
    "random_matrix": lambda shape: (RandomMatrix(shape, 5, sigma=0.3), "periodic"),
}


def make(name, shape=SHAPE, mean=0.3):
    process, boundary = MAPS[name](shape)
    return exact(process, gaussian(shape, boundary, mean))


@pytest.fixture(params=MAPS)
def oracle(request):
    return make(request.param)


def forced_dense(oracle):
    """The same oracle, made to use matrices over all pixels."""
    other = GaussianOracle(oracle.process, DataSpec(oracle.process.shape, (-3, 3), "neumann", None, oracle.spectrum))
    other.basis, other.diagonal = oracle.basis, False
    return other


def fields(n=3, shape=SHAPE, seed=5):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def middle(oracle):
    return oracle.process.times[3:4]


def matrices(oracle, t):
    """C, A and the variance of the noise by pixel, (D, D) numpy, from the map applied to one pixel after the other."""
    d = oracle.spectrum.numel()
    pixels = torch.eye(d, dtype=torch.float64).reshape(d, *oracle.spectrum.shape)
    rest = oracle.process.mean(torch.zeros_like(pixels), t)
    gain = (oracle.process.mean(pixels, t) - rest).flatten(1).mT.numpy()
    noise = oracle.process.scale_coefficients(pixels, oracle.process.std(t)).flatten(1).mT.numpy()
    waves = oracle.basis(pixels).flatten(1).mT.numpy()
    return waves.T @ np.diag(oracle.spectrum.flatten().numpy()) @ waves, gain, noise @ noise.T


def joint(oracle, t, n, seed=0):
    """n draws of (u_0, u_t)."""
    noise = normal(seed)
    u0 = oracle.prior_sample(noise, torch.empty(n, *oracle.process.shape))
    return u0, oracle.process.perturb(u0, t, noise.normal_like(u0))


# the density ---------------------------------------------------------------------------------------------------------------


def test_the_score_is_the_gradient_of_the_log_density(oracle):
    u = fields().requires_grad_()
    t = oracle.process.times[[1, 3, 5]]
    (slope,) = torch.autograd.grad(oracle.log_prob(u, t).sum(), u)
    assert_close(oracle.score(u.detach(), t), slope, atol=1e-9 * slope.abs().max().item(), rtol=0)
    assert slope.abs().min() > 0


@pytest.mark.parametrize("name", MAPS)
def test_the_log_density_is_that_of_scipy(name):
    oracle = make(name, (1, 4, 4))
    u, t = fields(shape=(1, 4, 4)), middle(oracle)
    prior, gain, noise = matrices(oracle, t)
    rest = oracle.process.mean(torch.zeros(1, 1, 4, 4, dtype=torch.float64), t).flatten().numpy()
    law = stats.multivariate_normal(rest, gain @ prior @ gain.T + noise)
    assert oracle.log_prob(u, t.expand(3)).tolist() == pytest.approx(law.logpdf(u.flatten(1).numpy()).tolist(), rel=1e-9)


def test_the_log_density_of_the_data_leaves_out_the_mode_that_is_certain():
    oracle = exact(stochastic((1, 4, 4)))
    u0 = oracle.prior_sample(normal(), torch.empty(3, 1, 4, 4))
    c, s = oracle.basis(u0).flatten(1)[:, 1:], oracle.spectrum.flatten()[1:]
    expected = -0.5 * (c**2 / s + (2 * math.pi * s).log()).sum(1)
    assert_close(oracle.log_prob(u0, at(0.0, 3)), expected, atol=0, rtol=1e-12)


def test_the_score_of_white_data_is_that_of_the_heat_kernel():
    process = VarianceExploding(SHAPE, 5, sigma_min=0.1, sigma_max=3.0)
    oracle = exact(process, DataSpec(SHAPE, (-3, 3), "neumann", None, torch.full(SHAPE, 0.25, dtype=torch.float64)))
    u, t = fields(), middle(exact(process))
    assert_close(oracle.score(u, t), -u / (0.25 + 2 * t.item()), atol=0, rtol=1e-12)


def test_the_score_over_the_waves_is_that_of_the_complex_fft():
    oracle, u = exact(stochastic((1, 6, 9))), fields(shape=(1, 6, 9))
    k2 = wave_numbers(6, 9)
    q = torch.where(k2 > 0, 0.01 * -(-2 * k2 * 0.1).expm1() / (2 * k2).clamp(min=1), 0.001 * torch.ones_like(k2))
    v = power_law((1, 6, 9))[0] * (-2 * k2 * 0.1).exp() + q
    expected = -torch.fft.ifft2(torch.fft.fft2(u, norm="ortho") / v, norm="ortho")
    assert expected.imag.abs().max() < 1e-9 * expected.real.abs().max()
    assert_close(oracle.score(u, at(0.1)), expected.real, atol=1e-9 * expected.real.abs().max().item(), rtol=0)


# the posterior -------------------------------------------------------------------------------------------------------------


def test_the_posterior_is_that_of_matrices_over_all_pixels(oracle):
    u, t = fields(), middle(oracle)
    prior, gain, noise = matrices(oracle, t)
    rest = oracle.process.mean(torch.zeros(1, *SHAPE, dtype=torch.float64), t).flatten().numpy()
    for white in (None, 0.15):
        seen = noise if white is None else white**2 * np.eye(64)
        weights = prior @ gain.T @ np.linalg.inv(gain @ prior @ gain.T + seen)
        covariance = prior - weights @ gain @ prior
        expected = torch.from_numpy((u.flatten(1).numpy() - rest) @ weights.T).reshape(u.shape)
        assert_close(oracle.posterior_mean(u, t, white), expected, atol=1e-9, rtol=0)
        assert oracle.minimum_mse(t, white) == pytest.approx(np.trace(covariance) / 64, rel=1e-8, abs=1e-12)
        if oracle.diagonal:
            waves = oracle.basis(torch.eye(64, dtype=torch.float64).reshape(64, *SHAPE)).flatten(1).mT
            own = (waves @ torch.from_numpy(covariance) @ waves.mT).diagonal().reshape(1, *SHAPE)
            assert_close(oracle.posterior_variance(t, white).expand(1, *SHAPE), own, atol=1e-9, rtol=1e-6)
        else:
            assert_close(oracle.posterior_covariance(t, white), torch.from_numpy(covariance), atol=1e-9, rtol=0)


def test_blur_of_periodic_data_is_that_of_the_dct_of_scipy():
    oracle = make("heat_of_periodic_data")
    assert not oracle.diagonal
    u, t = fields(), middle(oracle)
    waves = dct(np.eye(8), axis=0, norm="ortho")
    n2 = np.arange(8) ** 2
    decay = np.exp(-(math.pi**2) * (n2[:, None] + n2) / 64 * t.item())
    both = np.kron(waves, waves)
    gain = both.T @ np.diag(decay.flatten()) @ both
    correlation = np.fft.ifft2(power_law()[0].numpy() + 0.3 * (wave_numbers(8, 8).numpy() == 0)).real
    i = np.arange(64)
    prior = correlation[(i[:, None] // 8 - i // 8) % 8, (i[:, None] % 8 - i % 8) % 8]
    total = gain @ prior @ gain.T + 0.01 * np.eye(64)
    expected = np.linalg.solve(total, u.flatten(1).numpy().T)
    assert_close(oracle.score(u, t), -torch.from_numpy(expected.T).reshape(u.shape), atol=1e-9, rtol=1e-9)
    mean = torch.from_numpy((prior @ gain.T @ expected).T).reshape(u.shape)
    assert_close(oracle.posterior_mean(u, t), mean, atol=1e-11, rtol=0)


@pytest.mark.parametrize("acts_on", ["rows", "rows_and_columns", "channel"])
def test_the_posterior_under_random_matrices_is_that_of_numpy(acts_on):
    process = RandomMatrix((1, 4, 6), 3, sigma=0.2, acts_on=acts_on, seed=4)
    oracle, u, t = exact(process), fields(shape=(1, 4, 6)), process.times[2:3]
    left = process.left[2].numpy()
    right = np.eye(6) if process.right is None else process.right[2].numpy()
    gain = left if acts_on == "channel" else np.kron(left, right)
    prior = matrices(oracle, t)[0]
    weights = prior @ gain.T @ np.linalg.inv(gain @ prior @ gain.T + 0.04 * np.eye(24))
    expected = torch.from_numpy(u.flatten(1).numpy() @ weights.T).reshape(u.shape)
    assert_close(oracle.posterior_mean(u, t), expected, atol=1e-10, rtol=0)


@pytest.mark.parametrize(("scheme", "expected"), [("exact", 0.027535), ("euler_maruyama", 0.027933)])
def test_the_least_error_is_the_known_number(scheme, expected):
    oracle = exact(StochasticHeat((1, 32, 32), scheme=scheme))
    assert oracle.minimum_mse(at(END)) == pytest.approx(expected, abs=6e-7)
    assert oracle.minimum_mse(at(END), white=0.01) == pytest.approx(0.024217, abs=6e-7)


@pytest.mark.parametrize("white", [None, 0.05])
@pytest.mark.parametrize("name", ["stochastic_heat", "heat_of_periodic_data", "falling"])
def test_draws_of_the_posterior_have_its_mean_and_its_variance(name, white):
    oracle, n = make(name), 4000
    t, u = middle(oracle), fields(1)
    draws = oracle.posterior_sample(u.expand(n, *SHAPE), t, normal(3), white)
    z = oracle.standardise(draws, u.expand(n, *SHAPE), t, white).flatten(1)
    assert not z.isnan().any()
    assert (z.mean(0) * math.sqrt(n)).abs().max() < 4.5
    assert ((z.square().mean(0) - 1) / math.sqrt(2 / n)).abs().max() < 4.8
    assert 1e-4 < stats.chi2(z.numel()).cdf(z.square().sum().item()) < 1 - 1e-4
    gap = (draws - oracle.posterior_mean(u, t, white)).square().mean().item()
    assert gap == pytest.approx(oracle.minimum_mse(t, white), rel=0.05)


@pytest.mark.parametrize("white", [None, 0.05])
def test_the_truth_in_units_of_the_posterior_is_standard_normal_on_every_ring(white):
    oracle, t, noise = exact(stochastic()), at(END), normal(7)
    u0 = oracle.prior_sample(noise, torch.empty(500, *SHAPE))
    eps = noise.normal_like(u0)
    u = oracle.process.mean(u0, t) + (
        oracle.process.scale_coefficients(eps, oracle.process.std(t)) if white is None else white * eps
    )
    z = oracle.standardise(u0, u, t, white)
    assert z[..., 0, 0].isnan().all()
    rings = wave_numbers(8, 8).sqrt().round()
    for ring in range(1, 7):
        chosen = z[:, 0, rings == ring].flatten()
        assert stats.kstest(chosen.numpy(), "norm").pvalue > 1e-3
    inside = (z[~z.isnan()].abs() < stats.norm.ppf(0.95)).double()
    assert inside.mean().item() == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / len(inside)))


def test_the_truth_under_a_map_without_a_basis_is_standard_normal_too():
    oracle = make("random_matrix")
    u0, u = joint(oracle, middle(oracle), 300)
    z = oracle.standardise(u0, u, middle(oracle))
    assert stats.kstest(z.flatten().numpy(), "norm").pvalue > 1e-3


@pytest.mark.parametrize("name", ["stochastic_heat", "heat_of_periodic_data"])
def test_the_rank_of_the_truth_among_draws_of_its_posterior_is_uniform(name):
    oracle, n, draws = make(name), 400, 9
    t = middle(oracle)
    u0, u = joint(oracle, t, n)
    noise = normal(11)
    others = torch.stack([oracle.posterior_sample(u, t, noise) for _ in range(draws)])
    ranks = (oracle.basis(others) < oracle.basis(u0)).sum(0)[:, 0, ::3, ::2].flatten()
    assert stats.chisquare(torch.bincount(ranks, minlength=draws + 1).numpy()).pvalue > 1e-3


def test_each_sample_of_a_batch_has_its_own_time(oracle):
    u, t = fields(), oracle.process.times[[5, 2, 4]]
    for method in ("score", "posterior_mean"):
        together = getattr(oracle, method)(u, t)
        alone = torch.cat([getattr(oracle, method)(u[j : j + 1], t[j : j + 1]) for j in range(3)])
        assert_close(together, alone, atol=1e-9 * alone.abs().max().item(), rtol=0)
    alone = [oracle.log_prob(u[j : j + 1], t[j : j + 1]).item() for j in range(3)]
    assert oracle.log_prob(u, t).tolist() == pytest.approx(alone, rel=1e-10)


def test_answers_have_the_precision_of_the_field(oracle):
    u, t = fields(), middle(oracle)
    for answer in (oracle.score, oracle.posterior_mean):
        assert answer(u.float(), t).dtype == torch.float32
        assert answer(u, t).dtype == torch.float64
        assert_close(answer(u.float(), t), answer(u.float().double(), t).float(), atol=0, rtol=0)


def test_the_prior_has_the_spectrum():
    for boundary, basis in (("periodic", Fourier(6, 9)), ("neumann", Cosine(6, 9))):
        shape, n = (2, 6, 9), 4000
        oracle = exact(ConstantVelocity(shape, 4), gaussian(shape, boundary))
        c = basis(oracle.prior_sample(normal(1), torch.empty(n, *shape)))
        assert not c[..., 0, 0].abs().gt(1e-12).any()
        z = ((c.square().mean(0) / oracle.spectrum - 1) / math.sqrt(2 / n)).flatten(1)[:, 1:]
        assert z.abs().max() < 4.5 and z.square().mean().item() == pytest.approx(1, abs=6 * math.sqrt(2 / z.numel()))


def test_the_score_and_the_posterior_mean_obey_the_formula_of_tweedie(oracle):
    u, t = fields(), middle(oracle)
    rest = u - oracle.process.mean(oracle.posterior_mean(u, t), t)
    expected = -oracle.process.scale_coefficients(rest, oracle.process.std(t) ** -2.0)
    assert_close(oracle.score(u, t), expected, atol=1e-8 * expected.abs().max().item(), rtol=0)


# two algebras, one answer --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("white", [None, 0.05])
@pytest.mark.parametrize("name", ["stochastic_heat", "heat", "constant_velocity", "falling", "variance_exploding"])
def test_matrices_over_all_pixels_give_what_the_coefficients_give(name, white):
    oracle = make(name)
    dense, u, t = forced_dense(oracle), fields(), middle(oracle)
    assert oracle.diagonal and not dense.diagonal
    assert_close(dense.score(u, t), oracle.score(u, t), atol=1e-8 * oracle.score(u, t).abs().max().item(), rtol=0)
    assert_close(dense.posterior_mean(u, t, white), oracle.posterior_mean(u, t, white), atol=1e-10, rtol=0)
    draws = [o.posterior_sample(u, t, normal(2), white) for o in (dense, oracle)]
    assert_close(*draws, atol=1e-10, rtol=0)
    assert dense.minimum_mse(t, white) == pytest.approx(oracle.minimum_mse(t, white), rel=1e-9)
    assert_close(dense.log_prob(u, t.expand(3)), oracle.log_prob(u, t.expand(3)), atol=0, rtol=1e-9)
    lengths = [o.standardise(draws[1] + 1, u, t, white).square().sum((1, 2, 3)) for o in (dense, oracle)]
    assert_close(*lengths, atol=0, rtol=1e-5)


@pytest.mark.parametrize("boundary", ["periodic", "neumann"])
def test_a_map_that_is_a_number_is_diagonal_in_every_basis_and_others_only_in_their_own(boundary):
    spec = gaussian(boundary=boundary)
    numbers = [ConstantVelocity(SHAPE, 4), VarianceExploding(SHAPE, 4), Falling(SHAPE, uniform(4), 0.1)]
    assert all(exact(process, spec).diagonal for process in numbers)
    assert exact(Heat(SHAPE, 4), spec).diagonal == (boundary == "neumann")
    assert exact(stochastic(), spec).diagonal == (boundary == "periodic")
    assert not exact(RandomMatrix(SHAPE, 4), spec).diagonal


# the probability flow ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["stochastic_heat", "euler_maruyama", "heat", "constant_velocity", "falling"])
def test_the_flow_carries_each_marginal_onto_every_other(name):
    oracle = make(name)
    u, times = fields(), oracle.process.times
    for t, s in [(times[5:6], times[2:3]), (times[5:6], times[:1]), (times[2:3], times[4:5])]:
        c = oracle.basis(oracle.flow(u, t, s) - oracle.flow(torch.zeros_like(u), t, s))
        factor = c / oracle.basis(u)
        assert_close(factor**2 * oracle.variance(t), oracle.variance(s).expand_as(c), atol=1e-10, rtol=1e-7)
        assert (factor >= 0).all()
        rest = [oracle.process.mean(torch.zeros_like(u), time) for time in (t, s)]
        assert_close(oracle.flow(rest[0], t, s), rest[1], atol=1e-12, rtol=0)


def test_the_flow_is_the_solution_of_its_differential_equation():
    oracle, t, s = exact(stochastic((1, 4, 4))), 0.2, 0.01
    u = fields(1, (1, 4, 4))

    def slope(time, y):
        state, now = torch.from_numpy(y).reshape(1, 1, 4, 4), at(time)
        half = oracle.process.diffusion(now) ** 2 / 2
        return (oracle.process.drift(state, now) - half * oracle.score(state, now)).flatten().numpy()

    end = solve_ivp(slope, (t, s), u.flatten().numpy(), rtol=1e-10, atol=1e-12).y[:, -1]
    assert oracle.flow(u, at(t), at(s)).flatten().tolist() == pytest.approx(end.tolist(), rel=1e-6, abs=1e-8)


def test_the_flow_of_end_states_is_distributed_like_the_data():
    oracle, n = exact(stochastic()), 4000
    _, u = joint(oracle, at(END), n)
    c = oracle.basis(oracle.flow(u, at(END)))
    z = ((c.square().mean(0) / oracle.spectrum - 1) / math.sqrt(2 / n)).flatten()[1:]
    assert z.abs().max() < 4.5 and z.square().mean().item() == pytest.approx(1, abs=6 * math.sqrt(2 / 63))
    assert c[..., 0, 0].abs().max() < 1e-12


# what cannot be answered ---------------------------------------------------------------------------------------------------


def test_data_without_a_spectrum_is_refused():
    with pytest.raises(ConfigError, match="needs Gaussian data with a known spectrum; use data=grf"):
        GaussianOracle(stochastic(), DataSpec(SHAPE))


def test_a_matrix_over_too_many_pixels_is_refused_and_coefficients_are_not():
    shape = (1, 65, 65)
    with pytest.raises(ConfigError, match=r"forward=heat is not diagonal in the basis of the data.*at most 4096 pixels"):
        exact(Heat(shape, 3))
    assert exact(stochastic(shape)).diagonal


def test_what_needs_coefficients_is_refused_without_them():
    oracle = make("heat_of_periodic_data")
    for ask in (oracle.variance, oracle.posterior_variance, lambda t: oracle.flow(fields(), t)):
        with pytest.raises(ConfigError, match="forward=heat is not diagonal in the basis of the data"):
            ask(middle(oracle))
