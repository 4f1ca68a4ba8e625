"""The optimal corrections against known numbers, least squares on simulated steps, numeric minima and the posterior."""

import itertools
import math

import pytest
import torch
from gaussian_toys import exact, gaussian, normal, wave_numbers
from scipy.optimize import minimize
from torch.testing import assert_close

from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.model.smdp import SMDP
from heatgen.oracle.correction import backward_loss, correction, optimal_score, reverse_factor
from heatgen.sampler.ode import ode

DT = 0.2 / 32
SCHEMES = ["exact", "euler_maruyama"]


def chain(scheme="euler_maruyama", size=32, num_levels=32, mean=0.0):
    process = StochasticHeat((1, size, size), num_levels, scheme=scheme)
    return exact(process, gaussian(process.shape, mean=mean))


def level(oracle, k):
    return oracle.process.times[k : k + 1]


def draws(oracle, k, n, steps=1, seed=0):
    """n draws of the states at levels k, k + 1, ..., by the steps of the map."""
    noise = normal(seed)
    u0 = oracle.prior_sample(noise, torch.empty(n, *oracle.process.shape))
    states = [oracle.process.perturb(u0, level(oracle, k), noise.normal_like(u0))]
    for j in range(k, k + steps):
        eps = noise.normal_like(u0)
        states.append(oracle.process.step(states[-1], level(oracle, j), level(oracle, j + 1), eps))
    return [oracle.basis(u) for u in states]


def test_the_reverse_mean_is_that_of_the_recursion_of_the_discrete_chain():
    oracle, k2 = chain(), wave_numbers(32, 32)
    a, v = (-k2 * DT).exp(), oracle.spectrum
    for m in range(32):
        later = a**2 * v + 0.01 * DT
        expected = torch.where(later > 0, a * v / later, torch.zeros_like(v))
        assert_close(reverse_factor(oracle, level(oracle, m + 1), level(oracle, m))[0], expected, atol=1e-12, rtol=1e-9)
        v = later


def test_the_losses_of_a_step_back_are_the_known_numbers():
    oracle = chain()
    pairs = [(level(oracle, k + 1), level(oracle, k)) for k in range(32)]
    best = [backward_loss(oracle, t, s) for t, s in pairs]
    plain = [backward_loss(oracle, t, s, corrected=False) for t, s in pairs]
    assert [sum(best) / 32, best[-1], best[0]] == pytest.approx([8.52e-5, 6.30e-5, 5.22e-4], rel=1e-3)
    assert [sum(plain) / 32, plain[-1], plain[0]] == pytest.approx([2.05e-4, 1.75e-4, 9.6e-4], rel=3e-3)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("k", [0, 3, 7])
def test_the_losses_are_those_of_simulated_steps(scheme, k):
    oracle, n = chain(scheme, 8, 8), 600
    t, s = level(oracle, k + 1), level(oracle, k)
    before, after = draws(oracle, k, n)
    a = oracle.process.ratio(s, t)
    for corrected, factor in [(True, reverse_factor(oracle, t, s)), (False, 2 - a)]:
        errors = (before - factor * after).square().flatten(1).mean(1)
        assert backward_loss(oracle, t, s, corrected) == pytest.approx(
            errors.mean().item(), abs=4.5 * errors.std().item() / math.sqrt(n)
        )


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("factor", [1.0, 0.5])
def test_the_optimal_score_is_the_least_squares_fit_on_simulated_steps(scheme, factor):
    oracle, n = chain(scheme, 8, 8), 600
    t, s = level(oracle, 5), level(oracle, 4)
    before, after = draws(oracle, 4, n)
    variance = factor * oracle.process.step_std(s, t) ** 2
    target = before - (2 - oracle.process.ratio(s, t)) * after
    fit = (after * target).sum(0) / after.square().sum(0) / variance[0]
    rest = (target - variance * fit * after).square().mean(0)
    z = (fit - optimal_score(oracle, t, s, factor)[0]) / (rest / after.square().sum(0)).sqrt() * variance[0]
    assert z.abs().max() < 4.5
    assert z.square().mean().item() == pytest.approx(1, abs=6 * math.sqrt(2 / 64))


def test_the_step_forward_beside_the_step_back_halves_the_optimum():
    oracle, n = chain("exact", 8, 8), 600
    r, s, t = (level(oracle, k) for k in (4, 5, 6))
    before, here, after = draws(oracle, 4, n, steps=2)
    variance = 0.5 * oracle.process.step_std(r, s) ** 2
    back = before - (2 - oracle.process.ratio(r, s)) * here
    forth = oracle.process.ratio(s, t) * here - after  # what a score at `here` would have to take away
    fit = ((here * back).sum(0) + (here * forth).sum(0)) / (2 * here.square().sum(0)) / variance[0]
    expected = optimal_score(oracle, s, r, 0.5, both=True)[0]
    rest = ((back - variance * fit * here).square().mean(0) + (forth - variance * fit * here).square().mean(0)) / 4
    z = (fit - expected) / (rest / here.square().sum(0)).sqrt() * variance[0]
    assert z.abs().max() < 4.5
    assert_close(expected, optimal_score(oracle, s, r)[0], atol=0, rtol=1e-14)


@pytest.mark.parametrize("index", [(0, 1), (1, 2), (3, 3)])
def test_a_longer_window_has_the_same_optimum(index):
    oracle = chain("exact", 8, 8, mean=0.5)
    r, s, t = (level(oracle, k) for k in (2, 3, 4))
    v = [oracle.variance(time)[0, 0][index].item() for time in (r, s, t)]
    a = [oracle.process.ratio(*pair)[0, 0][index].item() for pair in ((r, s), (s, t))]
    q = [oracle.process.step_std(*pair)[0, 0][index].item() ** 2 for pair in ((r, s), (s, t))]

    def loss(scores):
        """E (u_s - y u_t)^2 + E (u_r - x y u_t)^2, as shares of the two variances; x and y: the steps back."""
        x, y = ((2 - a[i]) + q[i] * scores[i] for i in (0, 1))
        first = v[1] - 2 * y * a[1] * v[1] + y**2 * v[2]
        second = v[0] - 2 * x * y * a[0] * a[1] * v[0] + (x * y) ** 2 * v[2]
        return first / v[1] + second / v[0]

    expected = [optimal_score(oracle, *pair)[0, 0][index].item() for pair in ((s, r), (t, s))]
    scale = [1 / q[0], 1 / q[1]]
    found = minimize(lambda z: loss([z[0] * scale[0], z[1] * scale[1]]), [0.0, 0.0], method="BFGS", options={"gtol": 1e-10})
    assert [z * c for z, c in zip(found.x, scale, strict=True)] == pytest.approx(expected, rel=1e-4, abs=1e-4 * scale[0])
    assert loss(expected) <= loss([1.01 * expected[0], expected[1]])
    assert loss(expected) <= loss([expected[0], 1.01 * expected[1]])


class Trained(SMDP):
    """A network that has become the optimal correction of every step between neighbouring levels."""

    def __init__(self, oracle):
        super().__init__(oracle.process, torch.nn.Identity(), ode, None)
        self.oracle = oracle

    def score(self, u, t):
        s = self.process.times[int(self.process.level(t[:1]).round()) - 1].expand(len(t))
        return self.oracle.basis.inverse(optimal_score(self.oracle, t, s) * self.oracle.basis(u))


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("num_levels", [1, 4, 32])
def test_without_noise_the_corrected_steps_end_in_the_posterior_mean(scheme, num_levels):
    oracle = chain(scheme, 8, num_levels)
    u = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    end = ode(Trained(oracle), u, oracle.process.times, factor=1.0)
    assert_close(end, oracle.posterior_mean(u, level(oracle, num_levels)), atol=1e-10, rtol=0)


def test_half_the_optimum_of_both_losses_does_the_same_with_twice_the_factor():
    oracle = chain("exact", 8, 8)
    t, s = level(oracle, 4), level(oracle, 3)
    assert_close(2 * optimal_score(oracle, t, s, both=True), optimal_score(oracle, t, s), atol=0, rtol=1e-14)
    q2 = oracle.process.step_std(s, t) ** 2
    assert_close(0.5 * q2 * optimal_score(oracle, t, s, 0.5), correction(oracle, t, s), atol=1e-15, rtol=1e-12)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_optimum_tends_to_the_exact_score_with_first_order_in_the_step(scheme):
    errors, index = [], [(0, 1), (2, 3), (0, 8)]
    for num_levels in (3200, 6400, 12800):
        oracle = chain(scheme, 32, num_levels)
        t, s = level(oracle, num_levels // 2), level(oracle, num_levels // 2 - 1)
        exact_score = -1 / oracle.variance(t)[0, 0]
        errors.append((optimal_score(oracle, t, s)[0, 0] - exact_score)[tuple(zip(*index, strict=True))].abs())
    for coarse, fine in itertools.pairwise(errors):
        assert_close((coarse / fine).log2(), torch.ones(3, dtype=torch.float64), atol=0.1, rtol=0)


def test_the_optimum_in_fine_steps_is_the_known_number():
    oracle = chain(num_levels=3200)
    t, s = level(oracle, 800), level(oracle, 799)
    assert (-1 / oracle.variance(t)[0, 0, 0, 8]).item() == pytest.approx(-6787, abs=1)
    assert optimal_score(oracle, t, s)[0, 0, 0, 8].item() == pytest.approx(-6788, abs=1)
