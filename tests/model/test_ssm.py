"""model=ssm: its expected loss against an explicit divergence and the exact score, and the noise of its directions."""

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
from heatgen.model.ssm import SSM
from heatgen.net.bayesian_unet import BayesianUNet
from heatgen.net.encoder_decoder import EncoderDecoder
from heatgen.net.fno import FNO
from heatgen.net.unet import UNet
from heatgen.noise import SampleNoise
from heatgen.sampler.sde import sde

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
    """net(x, k) = M x + c on flattened fields."""

    def __init__(self, seed=0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.matrix = nn.Parameter(torch.randn(D, D, generator=generator, dtype=torch.float64))
        self.shift = nn.Parameter(torch.randn(D, generator=generator, dtype=torch.float64))

    def forward(self, x, k, cond=None):
        return (x.flatten(1) @ self.matrix.mT + self.shift).reshape(x.shape)


def heat():
    return Heat(SHAPE, K, SIGMA)


def make(net, process=None, t=None, **settings):
    """A model whose loss is that at the time t, if it is given."""
    optimizer = functools.partial(torch.optim.Adam, lr=1e-3)
    model = SSM(process or heat(), net, sde, optimizer, **settings).eval()
    if t is not None:
        model.times_for = lambda rng: t
    return model


def images(batch, seed=0):
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def randomised(net):
    generator = torch.Generator().manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3, generator=generator)
    return net.double()


def fixed(eps, uniform):
    """Noise that draws this eps and these numbers for z."""
    return SimpleNamespace(normal_like=lambda u: eps, uniform_like=lambda u: uniform)


def weighed(process, t, s):
    """L s."""
    return process.scale_coefficients(s, process.std(t).double())


@pytest.mark.parametrize("name", ["heat", "stochastic_heat", "blurring", "random_matrix"])
def test_the_expected_loss_is_half_the_square_and_the_divergence(name):
    """Of L s and of L^2 grad s, whatever the map; the Jacobian by differences of exact rows."""
    n, process = 4000, shipped_map(name, SHAPE, K)
    one = process.times[2:3]
    model = make(Linear(), process, one.expand(n))
    u0, eps, noise = images(1), images(1, 1) - 0.5, SampleNoise(range(n), 0).uniform_like(images(1).expand(n, *SHAPE))
    losses = model.loss({"u0": u0.expand(n, *SHAPE)}, fixed(eps.expand(n, *SHAPE), noise))
    u = process.perturb(u0, one, eps)
    score = model.score(u, one)
    unit = torch.eye(D, dtype=torch.float64).reshape(D, *SHAPE)
    rows = model.score(u + unit, one.expand(D)) - score  # a linear network has no other derivative
    divergence = (weighed(process, one, weighed(process, one, rows)) * unit).sum()
    expected = (weighed(process, one, score).square().sum() / 2 + divergence) / D
    assert abs(losses.mean() - expected) < 4 * losses.std() / math.sqrt(n) + 1e-9


def test_the_loss_is_the_error_of_the_score_and_a_constant():
    """For Gaussian data: loss(s) - loss(s*) is 1/2 |L (s - s*)|^2 / D in the mean, s* the exact score."""
    n, process = 20_000, shipped_map("stochastic_heat", SHAPE, K)
    t = process.times[2:3].expand(n)
    generator = torch.Generator().manual_seed(4)
    root = 0.3 * torch.randn(D, D, generator=generator, dtype=torch.float64) + torch.eye(D, dtype=torch.float64)
    u0 = (torch.randn(n, D, generator=generator, dtype=torch.float64) @ root.mT).reshape(n, *SHAPE)
    eps = torch.randn(n, *SHAPE, generator=generator, dtype=torch.float64)
    noise = fixed(eps, SampleNoise(range(n), 0).uniform_like(u0))
    unit = torch.eye(D, dtype=torch.float64).reshape(D, *SHAPE)
    seen, blur = process.mean((root.mT).reshape(D, *SHAPE), t[:D]), weighed(process, t[:D], unit)
    covariance = seen.flatten(1).mT @ seen.flatten(1) + blur.flatten(1).mT @ blur.flatten(1)

    def exact(u):
        return -torch.linalg.solve(covariance, u.flatten(1).mT).mT.reshape(u.shape)

    def answer(x, k, cond):  # F of the exact score
        (gain, std, variance), spectrum = model.known.coefficients(t[:1]), model.known.spectrum
        u = process.basis.inverse(process.basis(x) * variance.sqrt())
        known = process.basis.inverse(-std / variance * process.basis(u))
        return process.scale_coefficients(weighed(process, t[:1], exact(u)) - known, (variance / spectrum).sqrt() / gain)

    net = Linear()
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(0.3)
    model = make(net, process, t)
    learned, u = model.loss({"u0": u0}, noise), process.perturb(u0, t, eps)
    error = weighed(process, t, model.score(u, t) - exact(u)).square().flatten(1).mean(1) / 2
    ideal = make(answer, process, t)
    best = ideal.loss({"u0": u0}, noise)
    assert (weighed(process, t, ideal.score(u, t) - exact(u)).abs() < 1e-9).all()
    gap = learned - best - error
    assert error.mean() > 0.05 and abs(gap.mean()) < 4 * gap.std() / math.sqrt(n)


def test_a_derivative_that_is_diagonal_in_the_basis_has_no_noise_of_the_directions():
    n, process = 50, shipped_map("stochastic_heat", SHAPE, K)
    factors = torch.rand(SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)

    def net(x, k, cond):
        return process.scale_coefficients(x, factors.expand(len(x), *SHAPE))

    model = make(net, process, process.times[2:3].expand(n))
    u0, eps = images(1).expand(n, *SHAPE), images(1, 1).expand(n, *SHAPE)
    losses = model.loss({"u0": u0}, fixed(eps, SampleNoise(range(n), 0).uniform_like(u0)))
    assert losses.std() < 1e-12


def test_more_projections_have_less_noise():
    n, process = 2000, heat()
    spread = []
    for projections in (1, 8):
        model = make(Linear(), process, process.times[2:3].expand(n), projections=projections)
        noise = SampleNoise(range(n), 0)
        stub = SimpleNamespace(normal_like=lambda u: torch.zeros_like(u), uniform_like=noise.uniform_like)
        spread.append(float(model.loss({"u0": images(1).expand(n, *SHAPE)}, stub).detach().var()))
    assert 6 < spread[0] / spread[1] < 10.5


@pytest.mark.parametrize("name", NETS)
def test_the_derivative_is_that_of_differences_and_every_weight_learns(name):
    process = heat()
    t = process.times[1:]
    model = make(randomised(NETS[name]), process, t)
    model.zero_grad()
    u0, eps, numbers = images(K), images(K, 1), images(K, 2)
    losses = model.loss({"u0": u0}, fixed(eps, numbers))
    u, z = process.perturb(u0, t, eps), process.basis.inverse(torch.where(numbers < 0.5, -1.0, 1.0).double())
    along, step = weighed(process, t, z), 1e-5
    slope = (model._learned(u + step * along, t) - model._learned(u - step * along, t)) / (2 * step)
    _, std, variance = model.known.coefficients(t)
    parts = weighed(process, t, model.score(u, t)).square() / 2 + z * slope
    expected = parts.flatten(1).mean(1) - (std**2 / variance).expand_as(u).flatten(1).mean(1)
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
