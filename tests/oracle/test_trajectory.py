"""The exact prediction of Gaussian trajectories against dense normal laws, its own identities, and simulation."""

import itertools
import math

import pytest
import torch
from gaussian_toys import normal
from scipy import stats
from torch.testing import assert_close

from heatgen.basis import Cosine, Fourier
from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.forward.heat import Heat
from heatgen.forward.levels import uniform
from heatgen.forward.process import ObservedProcess
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.frames import Frames, concatenate
from heatgen.noise import SampleNoise
from heatgen.oracle.trajectory import GaussianTrajectory, noise_ceiling, pixel_variance

SHAPE, S = (2, 3, 4), 0.3
NAMES = ("joint", "frames")


class Falling(ObservedProcess):
    """u_t = (1 - t / 2) u_0 + t^2."""

    def gain(self, t):
        return 1 - self.column(t) / 2

    def offset(self, t):
        return self.column(t) ** 2


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def spectrum(shape=SHAPE):
    """A variance of each coefficient without any symmetry, 0 in one."""
    result = torch.rand(shape, generator=generator(3), dtype=torch.float64) + 0.1
    result[0, 1, 2] = 0
    return result


MAPS = {
    "heat": (lambda shape: Heat(shape, 5), "neumann"),
    "stochastic_heat": (lambda shape: StochasticHeat(shape, 5), "periodic"),
    "falling": (lambda shape: Falling(shape, uniform(5), 0.0), "neumann"),
    "falling_periodic": (lambda shape: Falling(shape, uniform(5), 0.0), "periodic"),
}


def make(name="heat", shape=SHAPE, noise_std=S):
    process, boundary = MAPS[name][0](shape), MAPS[name][1]
    return GaussianTrajectory(process, DataSpec(shape, (-3, 3), boundary, None, spectrum(shape)), noise_std)


@pytest.fixture(params=MAPS)
def oracle(request):
    return make(request.param)


def tasks(oracle, batch, n, seed=0):
    """n frames of each of `batch` trajectories at times of their own, and the clean fields, (B, n, C, H, W)."""
    times = torch.rand(batch, n, generator=generator(seed), dtype=torch.float64) * oracle.process.times[-1]
    nothing = Frames.of(times[:, :0], torch.zeros(batch, 0, *oracle.shape))
    noise = normal(seed + 1)
    clean = oracle.sample(nothing, times, noise)
    return Frames.of(times, clean + oracle.noise_std * noise.normal_like(clean)), clean


def split(frames, *sizes):
    edges = [sum(sizes[:i]) for i in range(len(sizes) + 1)]
    return [frames.select(torch.arange(a, b)) for a, b in itertools.pairwise(edges)]


def dense(oracle, times):
    """Mean and covariance of the clean frames of one trajectory at times (N,), over all pixels, from matrices."""
    size = math.prod(oracle.shape)
    pixels = torch.eye(size, dtype=torch.float64).reshape(size, *oracle.shape)
    waves = oracle.basis(pixels).flatten(1).mT
    prior = waves.mT @ torch.diag(oracle.spectrum.flatten()) @ waves
    zero = torch.zeros_like(pixels[:1])
    rest = [oracle.process.mean(zero, t[None]).flatten() for t in times]
    maps = [(oracle.process.mean(pixels, t[None]).flatten(1) - b).mT for t, b in zip(times, rest, strict=True)]
    stack = torch.cat(maps)
    return torch.cat(rest), stack @ prior @ stack.mT


def log_normal(gap, covariance):
    return stats.multivariate_normal(None, covariance.numpy()).logpdf(gap.numpy())


@pytest.mark.parametrize("nc", [0, 1, 3])
def test_by_coefficient_is_the_dense_normal_law(oracle, nc):
    frames, _ = tasks(oracle, 2, nc + 3)
    context, targets = split(frames, nc, 3)
    size = math.prod(oracle.shape)
    answers = {name: getattr(oracle, name)(context, targets) for name in NAMES}
    mean, variance = oracle.mean(context, targets.times), oracle.variance(context, targets.times)
    for b in range(2):
        rest, clean = dense(oracle, frames.times[b])
        gap, k = frames.values[b].flatten() - rest, nc * size
        noisy = clean + S**2 * torch.eye(len(clean), dtype=clean.dtype)
        weights = clean[k:, :k] @ torch.linalg.inv(noisy[:k, :k])
        own, spread = weights @ gap[:k], clean[k:, k:] - weights @ clean[:k, k:]
        white = spread + S**2 * torch.eye(len(spread), dtype=clean.dtype)
        assert answers["joint"][b].item() == pytest.approx(log_normal(gap[k:] - own, white), abs=1e-10)
        assert_close(mean[b].flatten(), own + rest[k:], atol=1e-10, rtol=0)
        assert_close(variance[b].flatten(), spread.diagonal(), atol=1e-10, rtol=0)
        for i in range(3):
            one = slice(i * size, (i + 1) * size)
            expected = log_normal((gap[k:] - own)[one], white[one, one])
            assert answers["frames"][b, i].item() == pytest.approx(expected, abs=1e-10)


@pytest.mark.parametrize("basis", [Cosine(4, 5), Fourier(4, 5), Fourier(5, 6)])
def test_the_variance_of_pixels_is_the_diagonal_of_the_covariance(basis):
    height, width = basis(torch.zeros(4, 5) if isinstance(basis, Cosine) else basis.eigenvalues).shape
    v = torch.rand(3, height, width, generator=generator(), dtype=torch.float64)
    pixels = basis(torch.eye(height * width, dtype=torch.float64).reshape(-1, height, width))
    expected = torch.einsum("xhw,bhw->bx", pixels**2, v).reshape(v.shape)
    assert_close(pixel_variance(basis, v), expected, atol=1e-14, rtol=0)


def test_the_chain_rule(oracle):
    c, a, b = split(tasks(oracle, 3, 6)[0], 2, 1, 3)
    both = oracle.joint(c, concatenate(a, b))
    assert_close(both, oracle.joint(c, a) + oracle.joint(concatenate(c, a), b), atol=1e-9, rtol=0)
    assert_close(oracle.joint(c, a), oracle.frames(c, a)[:, 0], atol=1e-9, rtol=0)


def test_frames_that_are_not_there_change_nothing(oracle):
    c, t = split(tasks(oracle, 2, 6)[0], 3, 3)
    absent = Frames(torch.full_like(c.times, torch.nan), torch.full_like(c.values, torch.nan), ~c.mask)
    for name in NAMES:
        answer, padded = getattr(oracle, name), getattr(oracle, name)(concatenate(absent, c), concatenate(t, absent))
        padded = padded if name == "joint" else padded[:, :3]
        assert_close(padded, answer(c, t), atol=1e-12, rtol=1e-14)
        assert not answer(c, absent).any()
    assert_close(oracle.mean(concatenate(c, absent), t.times), oracle.mean(c, t.times), atol=1e-12, rtol=0)


def test_the_order_of_the_context_does_not_matter(oracle):
    c, t = split(tasks(oracle, 2, 7)[0], 4, 3)
    other = c.select(torch.tensor([2, 0, 3, 1]))
    for name in NAMES:
        assert_close(getattr(oracle, name)(other, t), getattr(oracle, name)(c, t), atol=1e-10, rtol=0)


def test_without_context_it_is_the_prior(oracle):
    frames, _ = tasks(oracle, 2, 2)
    nothing, targets = split(frames, 0, 2)
    mean, variance = oracle.posterior(nothing)
    assert not mean.any()
    assert_close(variance, oracle.spectrum.expand_as(variance), atol=0, rtol=1e-15)
    assert oracle.joint(targets, nothing).tolist() == [0, 0]


def test_samples_have_the_mean_and_covariance_of_the_answer(oracle):
    context, targets = split(tasks(oracle, 1, 4)[0], 2, 2)
    n = 20000
    many = Frames.of(context.times.expand(n, -1), context.values.expand(n, -1, -1, -1, -1))
    draws = oracle.sample(many, targets.times.expand(n, -1), normal(7))
    variance = oracle.variance(context, targets.times)[0]
    gap = (draws.mean(0) - oracle.mean(context, targets.times)[0]) / (variance / n).sqrt().clamp(min=1e-12)
    assert gap.abs().max() < 5
    assert_close(draws.var(0), variance, atol=1e-12, rtol=5 * math.sqrt(2 / n))
    rest = draws - oracle.process.mean(torch.zeros(n, *SHAPE), targets.times[0, :1])[:, None]
    assert torch.corrcoef(rest[:, :, 0, 0, 0].mT)[0, 1] > 0.5  # one u_0 for all times of a draw


def test_pixels_are_calibrated_and_the_noise_bounds_the_likelihood():
    oracle = make(shape=(1, 8, 8))
    frames, clean = tasks(oracle, 400, 8)
    targets, fields = frames.select(torch.arange(4, 8)), clean[:, 4:]
    means = []
    for nc in (0, 1, 4):
        context = frames.select(torch.arange(nc))
        mean, variance = oracle.mean(context, targets.times), oracle.variance(context, targets.times)
        z = (targets.values - mean) / (variance + S**2).sqrt()
        assert stats.kstest(torch.special.ndtr(z[:, 0, 0, 2, 3]).numpy(), "uniform").pvalue > 0.01
        assert (z.abs() < 1.6448536).double().mean().item() == pytest.approx(0.9, abs=0.015)
        assert ((fields - mean) ** 2 / variance).mean().item() == pytest.approx(1, abs=0.1)
        joint = oracle.joint(context, targets) / 256
        assert joint.mean() < noise_ceiling(S) + 3 * joint.std() / 20
        pixels = torch.distributions.Normal(mean, (variance + S**2).sqrt()).log_prob(targets.values)
        means.append([oracle.frames(context, targets).mean(), pixels.mean(), joint.mean()])
    assert all(a < b for early, late in itertools.pairwise(means) for a, b in zip(early, late, strict=True))


def test_the_noise_ceiling_is_minus_the_entropy_of_the_noise():
    assert noise_ceiling(0.05) == pytest.approx(-stats.norm(0, 0.05).entropy(), rel=1e-12)


def test_a_map_that_was_drawn_for_each_trajectory():
    spec = DataSpec(SHAPE, (-3, 3), "neumann", None, spectrum())
    process = RandomVelocity(SHAPE, 5)
    drawn = process.draw(SampleNoise(range(3), 0))
    frames, _ = tasks(GaussianTrajectory(process.bind(drawn), spec, S), 3, 4)
    context, targets = split(frames, 2, 2)
    together = GaussianTrajectory(process.bind(drawn), spec, S).joint(context, targets)
    for b in range(3):
        alone = GaussianTrajectory(process.bind(drawn[b : b + 1]), spec, S)
        assert alone.joint(context.part(slice(b, b + 1)), targets.part(slice(b, b + 1))).item() == pytest.approx(
            together[b].item(), rel=1e-12
        )


def test_what_has_no_exact_prediction_is_refused():
    spec = DataSpec(SHAPE, (-3, 3), "periodic", None, spectrum())
    for process in (RandomMatrix(SHAPE, 5), Heat(SHAPE, 5)):
        with pytest.raises(ConfigError, match="not diagonal"):
            GaussianTrajectory(process, spec, S)
    with pytest.raises(ConfigError, match="Gaussian data"):
        GaussianTrajectory(Heat(SHAPE, 5), DataSpec(SHAPE), S)
    with pytest.raises(ConfigError, match="noise_std"):
        GaussianTrajectory(StochasticHeat(SHAPE, 5), spec, 0.0)
