"""forward=student_t: the law of its noise, its limit, and samples of two points by the exact flow."""

import functools
from types import SimpleNamespace

import pytest
import torch
from conftest import shipped_map
from hydra.errors import InstantiationException
from scipy import stats
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.model.diffusion import Diffusion
from heatgen.model.grid import Grid
from heatgen.model.ihd import IHD
from heatgen.model.prior import start
from heatgen.model.ssm import SSM
from heatgen.noise import SampleNoise
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.heun import heun
from heatgen.sampler.momentum import momentum
from heatgen.sampler.multistep import multistep
from heatgen.sampler.ode import ode

SHAPE = (1, 2, 3)
N = 6


def silent(u, k, cond=None):
    return torch.zeros_like(u)


def make(degrees=3, levels=20, largest=10.0):
    own = {"sigma_min": 0.01, "sigma_max": largest}
    return shipped_map("student_t", SHAPE, levels, levels=own, degrees_of_freedom=degrees)


@pytest.mark.parametrize("degrees", [1, 3, 200])
def test_the_noise_is_student_t_in_each_pixel_and_in_norm(degrees):
    process, rng = make(degrees), SampleNoise(range(6000), 0)
    t = process.times[7:8].expand(6000)
    bound = process.bind(process.draw(rng))
    noise = bound.perturb(torch.zeros(6000, *SHAPE, dtype=torch.float64), t, rng.normal(*SHAPE, dtype=torch.float64))
    noise = noise.flatten(1) / process.std(t[:1]).item()
    assert stats.kstest(noise[:, 0].numpy(), stats.t(degrees).cdf).pvalue > 1e-3
    assert stats.kstest((noise.square().sum(1) / N).numpy(), stats.f(N, degrees).cdf).pvalue > 1e-3
    assert stats.kstest(noise[:, 0].numpy(), stats.norm.cdf).pvalue < 1e-3 or degrees == 200


def test_the_size_belongs_to_the_sample_whatever_its_batch_and_level():
    process = make()
    together, alone = (process.draw(SampleNoise(indices, 5)) for indices in (range(4), [2]))
    assert torch.equal(together[2:3], alone) and len(together.unique()) == 4
    bound = process.bind(together)
    t = process.times[[1, 4, 9, 20]]
    assert_close(bound.std(t).flatten() / process.std(t).flatten(), together[:, 0], atol=0, rtol=1e-12)
    assert_close(bound.diffusion(t).flatten() / process.diffusion(t).flatten(), together[:, 0], atol=0, rtol=1e-12)


def test_infinitely_many_degrees_of_freedom_are_variance_exploding():
    process, other = make(None), VarianceExploding(SHAPE, 20, 0.01, 10.0)
    assert torch.equal(process.times, other.times) and process.draw(SampleNoise([0], 0)) is None
    assert torch.equal(process.std(process.times), other.std(other.times))
    assert not (process.is_random or process.withholds_cond or process.random_noise_only)
    sizes = make(65536).draw(SampleNoise(range(100), 0))
    assert (sizes - 1).abs().max() < 5 / (2 * 65536) ** 0.5


class TwoPoints(Diffusion):
    """The exact E[u_0 | u_t] of two points of weights 1/4 and 3/4 under the Student-t law."""

    points = torch.stack([torch.full(SHAPE, 0.1), torch.full(SHAPE, 0.6)]).double()

    def denoise(self, u, t):
        degrees, sigma = self.process.degrees, self.process.std(t).flatten()[:, None]
        squares = (u.double()[:, None] - self.points).flatten(2).square().sum(2)
        logs = -(degrees + N) / 2 * torch.log1p(squares / (degrees * sigma**2))
        weights = (logs + torch.tensor([0.25, 0.75]).double().log()).softmax(1)
        return torch.einsum("bm,mchw->bchw", weights, self.points).to(u)


def test_the_flow_with_the_exact_mean_ends_in_the_data_in_their_proportions():
    n, process = 3000, make(3, 60, 20.0)
    model = TwoPoints(process, silent, heun, None)
    data = SimpleNamespace(
        states=None, prior_images=lambda indices, seed: TwoPoints.points[(torch.tensor(indices) % 4 > 0).long()].float()
    )
    model.grid = Grid(50, "rho")  # the one of EDM, which is PFGM++'s too: it does not know the sizes
    begin = start(model, data, range(n), 0, "cpu")
    radius = begin.state.double().flatten(1).square().mean(1).sqrt() / 20
    assert stats.kstest(radius.numpy() ** 2, stats.f(N, 3).cdf).pvalue > 1e-3  # the prior is Student-t too
    u0 = begin.model.generate(begin.state, begin.rng)
    gaps = (u0.double()[:, None] - TwoPoints.points).flatten(2).abs().amax(2)
    assert gaps.min(1).values.quantile(0.99) < 1e-3
    share = (gaps.argmin(1) == 1).double().mean().item()
    assert abs(share - 0.75) < 4 * (0.75 * 0.25 / n) ** 0.5


@pytest.mark.parametrize("prediction_type", ["preconditioned", "x0", "eps", "score"])
def test_no_network_sees_the_size_and_the_loss_of_the_truth_is_0(prediction_type):
    process, u0, seen = make(), torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0)).double(), []

    def net(u, k, cond):
        seen.append((u, k))
        return torch.zeros_like(u)

    model = Diffusion(process, net, None, None, prediction_type=prediction_type)
    model.loss({"u0": u0}, SampleNoise(range(5), 0))
    rng = SampleNoise(range(5), 0)
    size = process.draw(rng)
    t = model.times_for(rng)
    z = size.reshape(-1, 1, 1, 1) * rng.normal_like(u0)
    u = process.perturb(u0, t, z)
    assert_close(seen[0][0] / u, (seen[0][0] / u)[:, :1, :1, :1].expand_as(u), atol=1e-6, rtol=1e-6)
    assert_close(model._target(u0, z, t).double(), of_truth(model, u0, u, t), atol=1e-5, rtol=1e-5)


def of_truth(model, u0, u, t):
    """What the network must give for `denoise` to be u_0: found from two answers, as `denoise` is affine in them."""
    model.net, zero = silent, torch.zeros_like(u)
    low = model.denoise(u, t)
    model.net = lambda x, k, cond: zero + 1
    high = model.denoise(u, t)
    return (u0 - low) / (high - low)


def test_what_needs_gaussian_noise_is_refused():
    for sampler in (ancestral, momentum, ode, functools.partial(heun, churn=4.0)):
        with pytest.raises(ConfigError, match=r"sampler=\w+ takes Gaussian.*forward=student_t; use sampler=heun"):
            Diffusion(make(), silent, sampler, None)
    with pytest.raises(ConfigError, match=r"model=ssm cannot use forward=student_t.*model=diffusion"):
        SSM(make(), silent, ode, None)
    Diffusion(make(None), silent, ancestral, None)
    for sampler in (functools.partial(heun, churn=0.0), multistep):
        Diffusion(make(), silent, sampler, None)
    for value, words in ((0, "at least 1"), (2.5, "whole number"), (10**6, "at most 65536.*null"), ("inf", "whole number")):
        with pytest.raises(InstantiationException, match=rf"forward\.degrees_of_freedom must be.*{words}"):
            make(value)


def test_inverse_dissipation_keeps_the_size_of_its_sample_in_every_step():
    model = IHD(make(), silent, ancestral, None, parametrisation="x0")
    rng = SampleNoise(range(3), 0)
    bound, eps = model.bound(rng), rng.normal(*SHAPE, dtype=torch.float64)
    t, s = (model.process.times[k].expand(3) for k in (5, 4))
    sizes = model.process.draw(SampleNoise(range(3), 0)).reshape(-1, 1, 1, 1)
    assert_close(bound.reverse_noise(eps, t, s), sizes * model.reverse_noise(eps, t, s), atol=0, rtol=1e-12)
