"""What a prediction says of pixels, frames and all frames together, against torch's own multivariate normal."""

import math

import pytest
import torch
from torch.distributions import LowRankMultivariateNormal, Normal
from torch.testing import assert_close

from heatgen.model.prediction import Prediction
from heatgen.noise import SampleNoise

K, B, M, SHAPE, L = 2, 3, 4, (1, 2, 3), 2


def make(rank=L):
    torch.manual_seed(0)
    mean, own = torch.randn(K, B, M, *SHAPE).double(), 0.1 + torch.rand(K, B, M, *SHAPE).double()
    return Prediction(mean, own, torch.randn(K, B, M, *SHAPE, rank).double() if rank else None), torch.randn(
        B, M, *SHAPE
    ).double()


@pytest.mark.parametrize("rank", [0, L])
def test_likelihoods_are_those_of_the_multivariate_normal(rank):
    said, y = make(rank)
    factor = said.factor if rank else torch.zeros(K, B, M, *SHAPE, 1).double()
    whole = LowRankMultivariateNormal(said.mean.flatten(2), factor.flatten(2, 5), said.own.square().flatten(2))
    assert_close(said.joint(y), whole.log_prob(y.flatten(1)))
    each = LowRankMultivariateNormal(said.mean.flatten(3), factor.flatten(3, 5), said.own.square().flatten(3))
    assert_close(said.frames(y), each.log_prob(y.flatten(2)))
    assert_close(said.std.flatten(2), whole.variance.sqrt())
    assert_close(said.pixels(y), Normal(said.mean, said.std).log_prob(y))
    if not rank:
        assert_close(said.frames(y).sum(2), said.joint(y))


@pytest.mark.parametrize("rank", [0, L])
def test_frames_that_do_not_count_change_nothing(rank):
    said, y = make(rank)
    mask = torch.tensor([True, False, True, True]).expand(B, M)
    kept = [0, 2, 3]
    factor = None if said.factor is None else said.factor[:, :, kept]
    assert_close(said.joint(y, mask), Prediction(said.mean[:, :, kept], said.own[:, :, kept], factor).joint(y[:, kept]))


def test_samples_have_the_moments_that_are_said():
    said, _ = make()
    many = Prediction(*(x[:, :1].expand(-1, 20_000, *x.shape[2:]) for x in (said.mean, said.own, said.factor)))
    draws = many.sample(SampleNoise(range(20_000), 0)).flatten(2)
    assert (draws.mean(1) - said.mean[:, 0].flatten(1)).abs().max() < 6 * said.std.max() / math.sqrt(20_000)
    factor = said.factor[:, 0].flatten(1, 4)
    expected = factor @ factor.mT + torch.diag_embed(said.own[:, 0].flatten(1).square())
    assert_close(torch.stack([torch.cov(x.T) for x in draws]), expected, atol=0.25, rtol=0)


def test_the_likelihood_of_correlated_pixels_is_the_same_inside_autocast():
    torch.manual_seed(0)
    mean, own = torch.zeros(K, B, M, *SHAPE), torch.full((K, B, M, *SHAPE), 0.01)
    said = Prediction(mean, own, torch.ones(K, B, M, *SHAPE, L) + 0.01 * torch.randn(K, B, M, *SHAPE, L))
    y = torch.randn(B, M, *SHAPE)
    expected, noise = said.joint(y), said.sample(SampleNoise(range(B), 0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(said.joint(y), expected)
        assert torch.equal(said.sample(SampleNoise(range(B), 0)), noise)
