"""The exact answers for mixtures, against autograd, quadrature, simulation and the Gaussian oracle."""

import itertools
import math

import pytest
import torch
from gaussian_toys import normal
from scipy import stats
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.data.module import DataSpec, Mixture
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.heat_kernel import HeatKernel
from heatgen.forward.kinematics import Kinematics
from heatgen.forward.random_basis_heat import RandomBasisHeat
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.oracle.find import exact_answers
from heatgen.oracle.gaussian import GaussianOracle
from heatgen.oracle.mixture import MixtureOracle

SHAPE = (1, 2, 2)


def mixture(shape=SHAPE, stds=(0.3, 0.0, 0.5)):
    means = torch.randn(3, *shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return Mixture(torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64), means, torch.tensor(stds, dtype=torch.float64))


def exact(process, law=None):
    return MixtureOracle(process, DataSpec(tuple(process.shape), bits=None, mixture=law or mixture(process.shape)))


MAPS = {
    "heat_kernel": HeatKernel(SHAPE, 4),
    "stochastic_heat": StochasticHeat(SHAPE, 4, g=0.5),
    "heat": Heat(SHAPE, 4, sigma=0.3, sigma_max=1.0),
    "constant_velocity": ConstantVelocity(SHAPE, 4, sigma=0.3),
    "kinematics": Kinematics(SHAPE, 4, sigma=0.3),
    "random_basis_heat": RandomBasisHeat(SHAPE, num_levels=4, sigma=0.3),
    "random_matrix_rows": RandomMatrix(SHAPE, 4, sigma=0.3, acts_on="rows"),
    "random_matrix_channel": RandomMatrix(SHAPE, 4, sigma=0.3, acts_on="channel"),
}
every_map = pytest.mark.parametrize("name", list(MAPS))


def states(process, n=6, seed=0):
    u = 1.5 * torch.randn(n, *process.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return u, process.times[[1, 2, 4]].repeat(n // 3)


def by_pixel(process, t):
    """A, b and L over all pixels as matrices, for one time."""
    size = math.prod(process.shape)
    eye, t = torch.eye(size, dtype=torch.float64).reshape(size, *process.shape), t.reshape(1)
    b = process.mean(torch.zeros(1, *process.shape).double(), t).flatten()
    return (
        (process.mean(eye, t.expand(size)).flatten(1) - b).mT,
        b,
        process.scale_coefficients(eye, process.std(t.expand(size))).flatten(1).mT,
    )


@every_map
def test_the_likelihood_is_that_of_full_covariance_matrices(name):
    process, law = MAPS[name], mixture()
    u, t = states(process)
    got = exact(process).log_prob(u, t)
    for i in range(len(u)):
        a, b, noise = by_pixel(process, t[i])
        logs = [
            math.log(w)
            + stats.multivariate_normal.logpdf(
                u[i].flatten().numpy(), (a @ m.flatten() + b).numpy(), (s**2 * a @ a.mT + noise @ noise.mT).numpy()
            )
            for w, m, s in zip(law.weights, law.means, law.stds, strict=True)
        ]
        assert got[i].item() == pytest.approx(torch.tensor(logs).logsumexp(0).item(), abs=1e-9)


@every_map
def test_the_score_is_the_gradient_of_the_likelihood(name):
    process = MAPS[name]
    u, t = states(process)
    u.requires_grad_()
    (slope,) = torch.autograd.grad(exact(process).log_prob(u, t).sum(), u)
    assert_close(exact(process).score(u.detach(), t), slope, atol=1e-9, rtol=1e-9)


@every_map
def test_the_posterior_mean_is_tweedies(name):
    """A E[u_0 | u] + b = u + L L^T score, whatever the map."""
    process = MAPS[name]
    u, t = states(process)
    oracle = exact(process)
    clean, push = process.mean(oracle.posterior_mean(u, t), t), oracle.score(u, t)
    for i in range(len(u)):
        _, _, noise = by_pixel(process, t[i])
        expected = u[i].flatten() + noise @ noise.mT @ push[i].flatten()
        assert_close(clean[i].flatten(), expected, atol=1e-9, rtol=0)


@every_map
def test_draws_have_the_posteriors_mean_and_the_joint_law(name):
    """(u_0, u_t) and (a draw given u_t, u_t) have one law: first and second moments of both, for one time."""
    process, law, n = MAPS[name], mixture(), 20_000
    source = torch.Generator().manual_seed(1)
    which = torch.multinomial(law.weights, n, True, generator=source)
    eps = torch.randn(2, n, *SHAPE, generator=source, dtype=torch.float64)
    u0 = law.means[which] + law.stds[which].reshape(-1, 1, 1, 1) * eps[0]
    t = process.times[2:3].expand(n)
    u = process.perturb(u0, t, eps[1])
    again = exact(process).posterior_sample(u, t, normal(5))
    for power, what in itertools.product((1, 2), ("own", "cross")):
        a, b = (x**power * (u if what == "cross" else 1) for x in (u0, again))
        z = (a - b).mean(0) / ((a - b).std(0) / n**0.5 + 1e-12)
        assert z.abs().max() < 4.5
    assert (u0 - again).std() > 0.05
    one = exact(process).posterior_sample(u[:1].expand(n, *SHAPE), t, normal(6))
    mean = exact(process).posterior_mean(u[:1], t[:1])[0]
    assert ((one.mean(0) - mean) / (one.std(0) / n**0.5 + 1e-6)).abs().max() < 4.5


def test_a_mixture_of_one_is_the_gaussian_oracle():
    process = HeatKernel((1, 4, 4), 4)
    one = Mixture(torch.ones(1), torch.zeros(1, 1, 4, 4), torch.tensor([0.7]))
    gaussian = GaussianOracle(process, DataSpec((1, 4, 4), boundary="neumann", variances=torch.full((1, 4, 4), 0.7**2)))
    oracle = exact(process, one)
    u, t = states(process)
    for name in ("score", "posterior_mean", "log_prob"):
        assert_close(getattr(oracle, name)(u, t), getattr(gaussian, name)(u, t), atol=1e-6, rtol=1e-6)
    assert_close(oracle.posterior_mean(u, t, 0.2), gaussian.posterior_mean(u, t, 0.2), atol=1e-6, rtol=1e-6)
    for mine, other in zip(oracle.marginals(t[:1]), gaussian.marginals(t[:1]), strict=True):
        assert_close(mine, other, atol=1e-6, rtol=1e-6)
    assert_close(gaussian.weights, oracle.weights)


def test_two_points_have_the_score_of_a_hyperbolic_tangent():
    """x_0 = +-1 under the heat kernel: score = (tanh(x / sigma^2) - x) / sigma^2."""
    process = HeatKernel((1, 1, 1), 10)
    law = Mixture(torch.full((2,), 0.5), torch.tensor([-1.0, 1.0]).reshape(2, 1, 1, 1), torch.zeros(2))
    x = torch.linspace(-3, 3, 31, dtype=torch.float64).reshape(-1, 1, 1, 1)
    for t in process.times[1:]:
        variance = process.std(t[None]).double() ** 2
        assert_close(exact(process, law).score(x, t[None]), ((x / variance).tanh() - x) / variance, atol=1e-9, rtol=1e-9)
        assert_close(exact(process, law).posterior_mean(x, t[None]), (x / variance).tanh(), atol=1e-9, rtol=0)


def test_a_point_has_the_score_of_the_heat_kernel():
    process = HeatKernel((1, 1, 5), 10)
    law = Mixture(torch.ones(1), torch.zeros(1, 1, 1, 5), torch.zeros(1))
    u, t = states(process)
    assert_close(exact(process, law).score(u, t), -u / process.std(t).double() ** 2, atol=1e-12, rtol=1e-12)
    assert not exact(process, law).posterior_mean(u, t).any()


@every_map
def test_marginals_are_those_of_the_coefficients_of_states(name):
    process, law, n = MAPS[name], mixture(), 5000
    oracle, source = exact(process), torch.Generator().manual_seed(2)
    which = torch.multinomial(law.weights, n, True, generator=source)
    eps = torch.randn(2, n, *SHAPE, generator=source, dtype=torch.float64)
    u0, t = law.means[which] + law.stds[which].reshape(-1, 1, 1, 1) * eps[0], process.times[2:3]
    c = oracle.coefficients(process.perturb(u0, t.expand(n), eps[1]), t)
    means, stds = oracle.marginals(t)
    for d in range(4):
        parts = list(zip(law.weights.tolist(), means[:, d].tolist(), stds[:, d].tolist(), strict=True))
        test = stats.kstest(c[:, d].numpy(), lambda x, parts=parts: sum(w * stats.norm.cdf(x, m, s) for w, m, s in parts))
        assert test.pvalue > 1e-3


def test_white_noise_replaces_that_of_the_map():
    process = HeatKernel(SHAPE, 4)
    u, t = states(process)
    other = HeatKernel(SHAPE, 4, clock="constant", diffusivity=0.5 * 0.2**2 / 0.3)  # sigma(0.3) = 0.2
    expected = exact(other).posterior_mean(u, torch.tensor([0.3], dtype=torch.float64))
    assert_close(exact(process).posterior_mean(u, t, white=0.2), expected)
    assert exact(process).posterior_sample(u, t, normal(), white=1e-6).sub(u).abs().max() > 0  # points keep their place


def test_there_is_an_answer_for_data_whose_law_is_known_and_for_no_other():
    process, drawn = HeatKernel(SHAPE, 4), RandomVelocity(SHAPE, 4)
    gaussian = DataSpec(SHAPE, boundary="neumann", variances=torch.ones(SHAPE))
    assert isinstance(exact_answers(process, DataSpec(SHAPE, mixture=mixture())), MixtureOracle)
    assert isinstance(exact_answers(process, gaussian), GaussianOracle)
    assert exact_answers(process, DataSpec(SHAPE)) is None
    assert exact_answers(drawn, gaussian) is None and exact_answers(drawn, DataSpec(SHAPE, mixture=mixture())) is None


def test_what_has_no_answer_is_refused():
    process = HeatKernel(SHAPE, 4)
    with pytest.raises(ConfigError, match=r"^The exact answer needs data that is a mixture"):
        MixtureOracle(process, DataSpec(SHAPE))
    with pytest.raises(ConfigError, match=r"^u_t has no density at t = 0 under forward=heat_kernel"):
        exact(process).log_prob(torch.zeros(1, *SHAPE), process.times[:1])
    with pytest.raises(ConfigError, match=r"^The probability flow of a mixture has no closed form; use sampler=heun"):
        exact(process).flow(*states(process))
