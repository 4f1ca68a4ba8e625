"""model=ssm: its loss by hand, its expectation against an explicit trace, its minimiser for Gaussian data."""

import functools
import math
from types import SimpleNamespace

import pytest
import torch
from conftest import shipped_map
from torch import nn
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.model.ssm import SSM
from heatgen.net.bayesian_unet import BayesianUNet
from heatgen.net.encoder_decoder import EncoderDecoder
from heatgen.net.fno import FNO
from heatgen.net.unet import UNet
from heatgen.noise import SampleNoise
from heatgen.sampler.ancestral import ancestral

SHAPE = (2, 4, 3)
D = math.prod(SHAPE)
K = 3
SIGMA = 0.2
NETS = {
    "unet": UNet(SHAPE, 4, (1, 2), 1, (1,), 0.0, 2),
    "unet_contiguous": UNet(SHAPE, 4, (1, 2), 1, (0,), 0.0, 2, padding="circular", memory_format="contiguous"),
    "encoder_decoder": EncoderDecoder(SHAPE, channels=4, blocks=2, num_levels=K),
    "fno": FNO(SHAPE, modes=2, width=4),
    "bayesian_unet": BayesianUNet(SHAPE, channels=(4, 4)),
}


class Linear(nn.Module):
    """net(x, k) = M x + c on flattened fields, one M and c for each level."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.matrix = nn.Parameter(torch.randn(K + 1, D, D, generator=generator, dtype=torch.float64))
        self.shift = nn.Parameter(torch.randn(K + 1, D, generator=generator, dtype=torch.float64))

    def forward(self, x, k, cond=None):
        number = k.round().long()
        return (torch.einsum("bij,bj->bi", self.matrix[number], x.flatten(1)) + self.shift[number]).reshape(x.shape)


def heat():
    return Heat(SHAPE, K, SIGMA)


def make(net, process=None, **settings):
    optimizer = functools.partial(torch.optim.Adam, lr=1e-3)
    return SSM(process or heat(), net, ancestral, optimizer, **settings).eval()


def images(batch, seed=0):
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(net):
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return net.double()


def fixed(k, eps, uniform):
    """Noise that draws these levels, this eps and these numbers for v."""
    return SimpleNamespace(integers=lambda low, high: k, normal_like=lambda u: eps, uniform_like=lambda u: uniform)


def signs(n, seed=2):
    return images(n, seed)


def test_the_loss_of_a_linear_network_by_hand():
    net = Linear()
    model, u0, eps, numbers = make(net), images(K), images(K, 1) - 0.5, signs(K)
    k = torch.arange(1, K + 1)
    u = (model.process.mean(u0, model.process.times[k]) + SIGMA * eps).flatten(1)
    v = torch.where(numbers < 0.5, -1.0, 1.0).double().flatten(1)
    score = (torch.einsum("kij,kj->ki", net.matrix[1:], u) + net.shift[1:]) / SIGMA
    slope = torch.einsum("ki,kij,kj->k", v, net.matrix[1:], v) / SIGMA
    expected = SIGMA**2 * (score.square().sum(1) / 2 + slope) / D
    assert_close(model.loss({"u0": u0}, fixed(k, eps, numbers)), expected, atol=1e-12, rtol=1e-12)


def test_the_expected_derivative_is_the_trace_of_the_jacobian():
    n, net = 4000, Linear()
    model, u0, eps = make(net), images(1).expand(n, *SHAPE), images(1, 1).expand(n, *SHAPE)
    losses = model.loss({"u0": u0}, fixed(torch.full((n,), 2), eps, SampleNoise(range(n), 0).uniform_like(u0)))
    u = (model.process.mean(u0[:1], model.process.times[2:3]) + SIGMA * eps[:1]).flatten()
    output = net.matrix[2] @ u + net.shift[2]
    expected = (output.square().sum() / 2 + SIGMA * net.matrix[2].trace()) / D
    assert losses.std() > 0.1
    assert abs(losses.mean() - expected) < 4 * losses.std() / math.sqrt(n)


@pytest.mark.parametrize("name", NETS)
def test_the_derivative_is_that_of_differences_and_every_weight_learns(name):
    model = make(randomised(NETS[name]))
    model.zero_grad()
    u0, eps, numbers, k = images(K), images(K, 1), signs(K), torch.arange(1, K + 1)
    losses = model.loss({"u0": u0}, fixed(k, eps, numbers))
    t = model.process.times[k]
    u, v = model.process.perturb(u0, t, eps), torch.where(numbers < 0.5, -1.0, 1.0).double()
    step = 1e-5
    slope = (model.score(u + step * v, t) - model.score(u - step * v, t)) / (2 * step)
    expected = SIGMA**2 * (model.score(u, t).square() / 2 + v * slope).flatten(1).mean(1)
    assert_close(losses, expected, atol=1e-7, rtol=1e-6)
    losses.sum().backward()
    assert [key for key, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
@pytest.mark.parametrize("name", ["unet", "encoder_decoder"])
def test_a_validation_gives_the_same_loss_as_training(name, mode):
    model, batch = make(randomised(NETS[name])), {"u0": images(3)}
    losses = model.loss(batch, SampleNoise(range(3), 0))
    with mode():
        assert_close(model.loss(batch, SampleNoise(range(3), 0)), losses.detach(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NETS)
def test_half_precision_leaves_the_derivative_alone(name):
    model, batch = make(randomised(NETS[name]).float()), {"u0": images(3).float()}
    losses = model.loss(batch, SampleNoise(range(3), 0))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = model.loss(batch, SampleNoise(range(3), 0))
        half.sum().backward()
    assert torch.equal(half, losses)


def test_the_minimiser_for_gaussian_data_is_the_exact_score():
    """For u_t ~ N(m, S) the score is -S^-1 (u - m); the loss is quadratic in (M, c), so one Newton step ends there."""
    n, k = 6000, 2
    generator = torch.Generator().manual_seed(4)
    root = 0.3 * torch.randn(D, D, generator=generator, dtype=torch.float64) + torch.eye(D, dtype=torch.float64)
    u0 = (torch.randn(n, D, generator=generator, dtype=torch.float64) @ root.mT + 0.5).reshape(n, *SHAPE)
    net = Linear()
    model = make(net)
    eps = torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)
    noise = fixed(torch.full((n,), k), eps, SampleNoise(range(n), 0).uniform_like(u0))
    t = model.process.times[k].expand(n)
    u = model.process.perturb(u0, t, eps).flatten(1)
    solution = torch.linalg.solve(torch.cov(u.mT, correction=0), u - u.mean(0), left=False)
    expected = -solution.reshape(n, *SHAPE)
    gram = torch.cat([u, torch.ones(n, 1, dtype=torch.float64)], dim=1)
    with torch.no_grad():
        net.matrix.zero_()
        net.shift.zero_()
    model.loss({"u0": u0}, noise).mean().backward()
    gradient = torch.cat([net.matrix.grad[k], net.shift.grad[k][:, None]], dim=1)  # at 0: the derivative's term alone
    weights = -torch.linalg.solve(gram.mT @ gram / n, gradient * D, left=False)  # the Hessian is that of |M u + c|^2 / 2
    with torch.no_grad():
        net.matrix[k], net.shift[k] = weights[:, :-1], weights[:, -1]
    score = model.score(u.reshape(n, *SHAPE), t)
    gap = (score - expected).square().mean().sqrt() / expected.square().mean().sqrt()
    assert gap < 0.1  # of the signs v: sqrt(D / n)
    best = model.loss({"u0": u0}, noise).mean()
    for _ in range(5):
        with torch.no_grad():
            before = [p.clone() for p in net.parameters()]
            for p in net.parameters():
                p.add_(0.05 * torch.randn(p.shape, generator=generator, dtype=torch.float64))
            assert model.loss({"u0": u0}, noise).mean() > best
            for p, old in zip(net.parameters(), before, strict=True):
                p.copy_(old)


def test_the_levels_are_trained_evenly_and_weigh_alike():
    process = VarianceExploding(SHAPE, num_levels=K)
    seen = []

    def net(u, k, cond=None):
        seen.append(k)
        return -u

    n, model = 1500, make(net, process)
    model.loss({"u0": images(1).expand(n, *SHAPE)}, SampleNoise(range(n), 0))
    counts = torch.bincount(seen[0].round().long(), minlength=K + 1)
    assert counts[0] == 0 and (counts[1:] - n / K).abs().max() < 4 * math.sqrt(n / K)
    t = process.times[1:]
    assert_close(model.sigma(t).flatten(), (2 * t).sqrt(), atol=1e-12, rtol=0)
    u = images(K)
    assert_close(model.score(u, t), -u / (2 * t).sqrt().reshape(-1, 1, 1, 1), atol=1e-12, rtol=0)


def test_the_noise_of_a_map_that_differs_by_coefficient_counts_by_its_root_mean_square():
    process = heat()
    weights = torch.arange(12.0).double().reshape(1, 1, 4, 3)
    process.std = lambda t: (process.column(t) > 0) * weights
    assert_close(make(Linear(), process).sigma(process.times[1:]).flatten(), weights.square().mean().sqrt().expand(K))


def test_the_loss_of_a_sample_does_not_depend_on_its_batch():
    model, u0 = make(randomised(NETS["encoder_decoder"])), images(4)
    together = model.loss({"u0": u0}, SampleNoise(range(4), 3))
    alone = torch.cat([model.loss({"u0": u0[[j]]}, SampleNoise([j], 3)) for j in range(4)])
    assert_close(together, alone, atol=1e-12, rtol=0)


def test_the_condition_is_that_of_the_bound_map():
    process, seen = RandomVelocity(SHAPE, K, SIGMA, 0.2, 0.8), []

    def net(u, k, cond):
        seen.append((k, cond))
        return -u

    make(net, process).loss({"u0": images(5)}, SampleNoise(range(5), 0))
    k, cond = seen[0]
    velocity = process.draw(SampleNoise(range(5), 0)).reshape(5)
    assert_close(cond, (1 - velocity * k / K)[:, None].expand(5, 2), atol=1e-12, rtol=0)


def test_a_map_without_noise_is_refused_by_name():
    with pytest.raises(ConfigError, match=r"forward=heat.*forward\.sigma"):
        make(Linear(), Heat(SHAPE, K, 0.0))


@pytest.mark.parametrize("name", ["stochastic_heat", "random_matrix", "blurring"])
def test_it_learns_along_any_map_with_noise(name):
    model = make(randomised(NETS["encoder_decoder"]).double(), shipped_map(name, SHAPE, K))
    losses = model.loss({"u0": images(2)}, SampleNoise(range(2), 0))
    assert losses.shape == (2,) and losses.isfinite().all()
