"""The exact prediction for templates of unknown amplitude against quadrature, its own identities, and simulation."""

import itertools
import math

import numpy as np
import pytest
import torch
from scipy import integrate, stats
from torch.testing import assert_close

from heatgen.basis import Cosine
from heatgen.check import ConfigError
from heatgen.forward.process import ObservedProcess
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.frames import Frames, concatenate
from heatgen.oracle.hypotheses import HypothesesTrajectory
from heatgen.oracle.integrals import log_average, tilted_moments
from heatgen.oracle.trajectory import noise_ceiling

S = 0.2
NAMES = ("joint", "frames")


class Cooling(ObservedProcess):
    """The heat equation with insulating walls on a box of side 1 at diffusivity D, plus t * offset."""

    def __init__(self, shape, diffusivity, offset=0.0):
        height, width = shape[-2:]
        super().__init__(shape, torch.linspace(0, 1, 5), 0.0, Cosine(height, width))
        k2 = torch.arange(height).double()[:, None] ** 2 + torch.arange(width).double() ** 2
        self.rates, self.rise = diffusivity * math.pi**2 * k2, offset

    def gain(self, t):
        return (-self.rates * self.column(t)).exp()

    def offset(self, t):
        return self.rise * self.column(t)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def make(templates=2, diffusivities=(0.02, 0.1), shape=(1, 3, 2), noise_std=S, amplitudes=(0.5, 1.5), offset=0.0):
    fields = torch.rand(templates, *shape, generator=generator(1), dtype=torch.float64)
    weights, chances = torch.arange(1.0, templates + 1), torch.arange(1.0, len(diffusivities) + 1)
    processes = [Cooling(shape, d, offset * (i + 1)) for i, d in enumerate(diffusivities)]
    return HypothesesTrajectory(fields, weights, amplitudes, processes, noise_std, chances), fields


def squares(n=8, half_sides=(1, 2)):
    """All squares on a field of n x n, smoothed, and the prior of a uniform half side and then centre."""
    fields, weights = [], []
    for s in half_sides:
        centres = range(s, n - s + 1)
        for y in centres:
            for x in centres:
                field = torch.zeros(1, n, n, dtype=torch.float64)
                field[0, y - s : y + s, x - s : x + s] = 1
                fields.append(field)
                weights.append(1 / len(half_sides) / len(centres) ** 2)
    return Cooling((1, n, n), 1.0).mean(torch.stack(fields), torch.tensor([0.06**2 / 2])), torch.tensor(weights)


def hot_spots(n=8, half_sides=(1, 2), noise_std=0.05, grid=4):
    fields, weights = squares(n, half_sides)
    processes = [Cooling((1, n, n), d) for d in np.geomspace(0.01, 0.1, grid)]
    return HypothesesTrajectory(fields, weights, (0.7, 1.0), processes, noise_std), fields


def tasks(oracle, fields, batch, times, seed=0):
    """Frames of `batch` trajectories drawn from the prior at times (N,) or (batch, N), and the clean fields."""
    random = generator(seed)
    which = torch.multinomial(oracle.prior.exp().flatten(), batch, True, generator=random)
    d, j = which // len(fields), which % len(fields)
    low = oracle.middle - oracle.width / 2
    a = low + oracle.width * torch.rand(batch, generator=random, dtype=torch.float64)
    times = times.double().expand(batch, -1)
    u0 = a[:, None, None, None] * fields[j]
    clean = torch.stack(
        [oracle.processes[d[b]].mean(u0[b : b + 1].expand(len(t), -1, -1, -1), t) for b, t in enumerate(times)]
    )
    noise = torch.randn(clean.shape, generator=random, dtype=torch.float64)
    return Frames.of(times, clean + oracle.noise_std * noise), clean


def first(frames, *sizes):
    edges = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    return [frames.select(torch.arange(a, b)) for a, b in itertools.pairwise(edges)]


def independent(oracle, context, targets):
    """ln of the best independent normal laws of the pixels, which have the exact mean and variance."""
    mean, variance = oracle.moments(context, targets.times)
    return torch.distributions.Normal(mean, (variance + oracle.noise_std**2).sqrt()).log_prob(targets.values)


def random_times(batch, n, seed=5):
    return torch.rand(batch, n, generator=generator(seed), dtype=torch.float64)


def brute(oracle, fields, frames, b=0, nodes=4000):
    """ln of w p(y | a, j, D) / nodes by hypothesis and amplitude, (n_D, M, nodes), from the density of each pixel."""
    edges = torch.linspace(-0.5, 0.5, nodes + 1, dtype=torch.float64)
    amplitudes = oracle.middle + oracle.width * (edges[1:] + edges[:-1]) / 2
    logs = oracle.prior[:, :, None] - math.log(nodes) + torch.zeros(nodes)
    for i, t in enumerate(frames.times[b]):
        for d, process in enumerate(oracle.processes):
            rest = process.mean(torch.zeros_like(fields[:1]), t[None])
            clean = process.mean(fields, t[None].expand(len(fields))) - rest
            gap = frames.values[b, i] - rest - amplitudes[:, None, None, None] * clean[:, None]
            logs[d] += torch.distributions.Normal(0, oracle.noise_std).log_prob(gap).sum((2, 3, 4))
    return logs, amplitudes


# against quadrature --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0.0, 0.3])
@pytest.mark.parametrize("nc", [0, 1, 2])
def test_the_answers_are_those_of_brute_force(nc, offset):
    oracle, fields = make(offset=offset)
    frames, _ = tasks(oracle, fields, 2, random_times(2, nc + 2))
    context, targets = first(frames, nc, 2)
    joint, alone = oracle.joint(context, targets), oracle.frames(context, targets)
    mean, variance = oracle.moments(context, targets.times)
    for b in range(2):
        before, amplitudes = brute(oracle, fields, context, b)
        after = brute(oracle, fields, frames, b)[0]
        assert joint[b].item() == pytest.approx((after.logsumexp((0, 1, 2)) - before.logsumexp((0, 1, 2))).item(), abs=1e-6)
        chance = (before - before.logsumexp((0, 1, 2))).exp()
        for i in range(2):
            one = concatenate(context, targets.select(torch.tensor([i])))
            expected = brute(oracle, fields, one, b)[0].logsumexp((0, 1, 2)) - before.logsumexp((0, 1, 2))
            assert alone[b, i].item() == pytest.approx(expected.item(), abs=1e-6)
            total, square = torch.zeros_like(fields[0]), torch.zeros_like(fields[0])
            for d, process in enumerate(oracle.processes):
                t = targets.times[b, i : i + 1]
                rest = process.mean(torch.zeros_like(fields[:1]), t)
                u = rest + amplitudes[:, None, None, None] * (process.mean(fields, t) - rest)[:, None]
                total += (chance[d, :, :, None, None, None] * u).sum((0, 1))
                square += (chance[d, :, :, None, None, None] * u**2).sum((0, 1))
            assert_close(mean[b, i], total, atol=1e-7, rtol=0)
            assert_close(variance[b, i], square - total**2, atol=1e-7, rtol=0)


def test_one_hypothesis_is_a_quadrature_over_the_amplitude():
    oracle, fields = make(1, (0.05,))
    frames, _ = tasks(oracle, fields, 1, random_times(1, 3))
    clean = oracle.processes[0].mean(fields.expand(3, -1, -1, -1), frames.times[0])
    law = stats.norm(0, S)
    density = lambda a: math.exp(law.logpdf((frames.values[0] - a * clean).numpy()).sum())  # noqa: E731
    expected = math.log(integrate.quad(density, 0.5, 1.5, epsabs=0, epsrel=1e-12)[0])
    assert oracle.joint(frames.select(torch.arange(0)), frames).item() == pytest.approx(expected, abs=1e-9)


EDGES = [0.0, 1e-9, 1e-3, 0.3, 0.7, 1.1, 3.0, 20.0, 100.0]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::scipy.integrate.IntegrationWarning")  # it is at the limit of rounding
def test_the_average_over_the_amplitude_and_its_moments():
    for p, q in itertools.product(EDGES, EDGES):
        peak = min(p / q if q else math.inf, 0.5)
        top = p * peak - q * peak**2 / 2
        law = [lambda v, n=n, p=p, q=q, x=peak, y=top: (v - x) ** n * math.exp(p * v - q * v**2 / 2 - y) for n in range(3)]
        zero, one, two = (integrate.quad(f, -0.5, 0.5, epsabs=1e-16, epsrel=1e-12, points=[peak])[0] for f in law)
        for sign in (1, -1):
            sides = torch.tensor([sign * p], dtype=torch.float64), torch.tensor([q], dtype=torch.float64)
            assert log_average(*sides).item() == pytest.approx(top + math.log(zero), abs=1e-12)
            mean, variance = tilted_moments(*sides)
            assert mean.item() == pytest.approx(sign * (peak + one / zero), abs=1e-12)
            assert variance.item() == pytest.approx(two / zero - (one / zero) ** 2, rel=1e-9)


def test_far_tails_are_those_of_the_exponential_law():
    p, q = torch.tensor([1e6, 1e10, 1e12], dtype=torch.float64), torch.tensor([1e2, 1e4, 1.0], dtype=torch.float64)
    slope = p - q / 2  # at the end
    assert_close(log_average(p, q), p / 2 - q / 8 - slope.log(), atol=1e-5, rtol=1e-15)
    mean, variance = tilted_moments(p, q)
    assert_close(0.5 - mean, 1 / slope, atol=1e-16, rtol=1e-5)
    assert_close(variance, slope**-2, atol=0, rtol=1e-5)


def test_amplitudes_that_the_frames_exclude_stay_finite():
    _, fields = make(noise_std=0.01)
    for low in (3.0, 30.0, 3000.0):  # the frames say about 1: hundreds of deviations away
        oracle, _ = make(noise_std=0.01, amplitudes=(low, low + 0.5))
        frames = Frames.of(random_times(2, 4), fields[:1].expand(2, 4, -1, -1, -1))
        context, targets = first(frames, 2, 2)
        for name in NAMES:
            assert getattr(oracle, name)(context, targets).isfinite().all()
        _, mean, second = oracle.posterior(context)
        assert ((mean >= low) | (mean == 0)).all() and (second >= mean**2).all()
        assert mean.max().item() == pytest.approx(low, rel=1e-2)


# its own identities --------------------------------------------------------------------------------------------------------


def test_the_chain_rule():
    oracle, fields = hot_spots()
    c, a, b = first(tasks(oracle, fields, 3, random_times(3, 6))[0], 2, 1, 3)
    both = oracle.joint(c, concatenate(a, b))
    assert_close(both, oracle.joint(c, a) + oracle.joint(concatenate(c, a), b), atol=1e-9, rtol=0)
    assert_close(oracle.joint(c, a), oracle.frames(c, a)[:, 0], atol=1e-9, rtol=0)


def test_frames_that_are_not_there_change_nothing_nor_does_their_order():
    oracle, fields = hot_spots()
    c, t = first(tasks(oracle, fields, 2, random_times(2, 6))[0], 3, 3)
    absent = Frames(torch.full_like(c.times, torch.nan), torch.full_like(c.values, torch.nan), ~c.mask)
    other = c.select(torch.tensor([2, 0, 1]))
    for name in NAMES:
        answer, padded = getattr(oracle, name), getattr(oracle, name)(concatenate(absent, c), concatenate(t, absent))
        assert_close(padded if name == "joint" else padded[:, :3], answer(c, t), atol=1e-9, rtol=1e-14)
        assert_close(answer(other, t), answer(c, t), atol=1e-9, rtol=1e-14)
        assert not answer(c, absent).any()


def test_many_trajectories_are_answered_in_parts(monkeypatch):
    oracle, fields = make()
    context, targets = first(tasks(oracle, fields, 5, random_times(5, 4))[0], 2, 2)
    whole = [getattr(oracle, name)(context, targets) for name in NAMES]
    monkeypatch.setattr("heatgen.oracle.hypotheses.CHUNK", 8)
    for name, expected in zip(NAMES, whole, strict=True):
        assert_close(getattr(oracle, name)(context, targets), expected, atol=1e-12, rtol=0)


def test_without_context_it_is_the_prior():
    oracle, fields = make()
    nothing = first(tasks(oracle, fields, 2, random_times(2, 1))[0], 0)[0]
    chance, mean, second = oracle.posterior(nothing)
    assert_close(chance, oracle.prior.exp()[:, None].expand_as(chance), atol=1e-15, rtol=0)
    assert_close(mean, torch.full_like(mean, 1.0), atol=1e-14, rtol=0)
    assert_close(second, torch.full_like(mean, 1 + 1 / 12), atol=1e-14, rtol=0)


# simulation ----------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_exact_law_of_a_frame_is_calibrated():
    oracle, fields = make(3, (0.02, 0.3), shape=(1, 1, 1), noise_std=0.15)
    n = 1500
    frames, _ = tasks(oracle, fields, n, random_times(n, 3))
    context, targets = first(frames, 2, 1)
    line = torch.linspace(-1, 3, 401, dtype=torch.float64)
    grid = Frames.of(targets.times.expand(-1, 401), line[None, :, None, None, None].expand(n, -1, 1, 1, 1))
    density = oracle.frames(context, grid).exp().numpy()
    law = integrate.cumulative_trapezoid(density, line.numpy(), axis=1, initial=0)
    assert_close(torch.as_tensor(law[:, -1]), torch.ones(n, dtype=torch.float64), atol=1e-6, rtol=0)
    pit = [np.interp(y, line.numpy(), row) for y, row in zip(targets.values.flatten().tolist(), law, strict=True)]
    assert stats.kstest(pit, "uniform").pvalue > 0.01


@pytest.mark.slow
def test_intervals_cover_and_more_context_never_hurts_on_average():
    oracle, fields = hot_spots()
    frames, _ = tasks(oracle, fields, 100, torch.arange(8) / 7)
    order = torch.rand(100, 8, generator=generator(), dtype=torch.float64).argsort(1)
    targets, scores = frames.select(order[:, 4:]), []
    for nc in (0, 1, 2, 4):
        context = frames.select(order[:, :nc])
        mean, variance = oracle.moments(context, targets.times)
        inside = ((targets.values - mean).abs() < 1.6448536 * (variance + 0.05**2).sqrt()).double().mean()
        assert nc == 0 or inside.item() == pytest.approx(0.9, abs=0.01)
        joint = oracle.joint(context, targets) / 256
        assert joint.mean() < noise_ceiling(0.05) + 3 * joint.std() / 10
        scores.append([joint.mean(), oracle.frames(context, targets).mean(), independent(oracle, context, targets).mean()])
    assert all(a < b for early, late in itertools.pairwise(scores) for a, b in zip(early, late, strict=True))


REFERENCE = {  # nats a dimension less those of the noise alone, 1.5743 there: joint, independent pixels; RMSE of the mean
    0: (1.5698 - 1.5743, 0.458 - 1.5743, 0.153),
    1: (1.5735 - 1.5743, 1.5661 - 1.5743, 0.0076),
    3: (1.5739 - 1.5743, 1.5730 - 1.5743, 0.0025),
}


@pytest.mark.slow
def test_the_numbers_of_an_independent_implementation():
    oracle, fields = hot_spots(16, (2, 3, 4), 0.05, 32)
    assert len(fields) == 371
    frames, clean = tasks(oracle, fields, 64, torch.arange(20) / 19)
    order = torch.rand(64, 20, generator=generator(), dtype=torch.float64).argsort(1)
    targets, truth = frames.select(order[:, 10:]), Frames.of(frames.times, clean).select(order[:, 10:]).values
    noise = torch.distributions.Normal(truth, 0.05).log_prob(targets.values).mean().item()
    for nc, (joint, pixels, rmse) in REFERENCE.items():
        context = frames.select(order[:, :nc])
        assert (oracle.joint(context, targets).mean() / 2560).item() - noise == pytest.approx(joint, abs=3e-4)
        gap = independent(oracle, context, targets).mean().item() - noise
        assert gap == pytest.approx(pixels, abs=0.2 if nc == 0 else 0.01 if nc == 1 else 1e-3)
        error = (oracle.mean(context, targets.times) - truth).square().mean().sqrt().item()
        assert error == pytest.approx(rmse, rel=0.5)


def test_what_has_no_exact_prediction_is_refused():
    _, fields = make()
    cooling = Cooling((1, 3, 2), 0.1)
    for processes in ([RandomMatrix((1, 3, 2), 4)], [cooling, RandomMatrix((1, 3, 2), 4)]):
        with pytest.raises(ConfigError, match="not diagonal"):
            HypothesesTrajectory(fields, torch.ones(2), (0.5, 1.5), processes, S)
    for weights, amplitudes, word in [
        (torch.ones(3), (0.5, 1.5), "one weight"),
        (-torch.ones(2), (0.5, 1.5), "negative"),
        (torch.ones(2), (1.5, 0.5), "ascend"),
    ]:
        with pytest.raises(ConfigError, match=word):
            HypothesesTrajectory(fields, weights, amplitudes, [cooling], S)
