"""model=diffusion with prediction_type=score, as model=heat_kernel_score has it: its loss, its minimiser, what it lacks."""

import functools
from types import SimpleNamespace

import pytest
import torch
from conftest import shipped_map
from torch import nn
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.heat_kernel import HeatKernel
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.model.diffusion import Diffusion
from heatgen.noise import SampleNoise
from heatgen.sampler.ancestral import ancestral
from heatgen.sampler.sde import sde

SHAPE = (1, 1, 3)


class Exact(nn.Module):
    """a times the network of a single point in the origin: net = -a u / sigma(t)."""

    def __init__(self, process, a=1.0):
        super().__init__()
        self.process, self.a = process, a

    def forward(self, u, level, cond=None):
        t = level.double() / self.process.num_levels
        return -self.a * u / self.process.std(t).to(u)


def make(process, net, scale_input=False, sampler=sde):
    adam = functools.partial(torch.optim.Adam, lr=1e-3)
    return Diffusion(process, net, sampler, adam, prediction_type="score", scale_input=scale_input, reverse_variance="small")


def batch(n, u0=None):
    return {"u0": torch.zeros(n, *SHAPE) if u0 is None else u0}


def test_the_loss_of_a_point_is_the_squared_error_of_the_score_times_the_variance():
    """For x_0 = 0 the regression has no noise: the loss is (1 - a)^2 |eps|^2 / D, and 0 for the exact network."""
    process = HeatKernel(SHAPE, 10)
    noise, again = SampleNoise(range(64), 0), SampleNoise(range(64), 0)
    assert make(process, Exact(process)).loss(batch(64), noise).max() < 1e-10
    loss = make(process, Exact(process, 0.7)).loss(batch(64), SampleNoise(range(64), 0))
    t = make(process, nn.Identity()).times_for(again)
    eps = again.normal_like(torch.zeros(64, *SHAPE))
    assert_close(loss, 0.3**2 * eps.square().flatten(1).mean(1), rtol=1e-4, atol=1e-6)
    assert t.min() > 0 and t.max() <= 1 and t.std() == pytest.approx(12**-0.5, rel=0.2)


def test_the_score_is_the_network_over_the_noise():
    process = HeatKernel(SHAPE, 10)
    u, t = torch.randn(4, *SHAPE), torch.tensor([0.1, 0.4, 0.7, 1.0])
    assert_close(make(process, Exact(process)).score(u, t), -u / process.std(t) ** 2, rtol=1e-5, atol=1e-6)


def test_under_any_map_the_target_is_the_noise_at_its_own_scale():
    """net = 0: the loss is |sigma L^-1 eps|^2 / D, which is |eps|^2 / D where L is a number."""
    for process in (Heat(SHAPE, 5, sigma=0.2), ConstantVelocity(SHAPE, 5, sigma=0.2), RandomMatrix(SHAPE, 5, sigma=0.2)):
        model = make(process, lambda u, k, cond: torch.zeros_like(u))
        loss = model.loss(batch(32, torch.rand(32, *SHAPE)), SampleNoise(range(32), 0))
        again = SampleNoise(range(32), 0)
        model.times_for(again)
        assert_close(loss, again.normal_like(torch.zeros(32, *SHAPE)).square().flatten(1).mean(1), rtol=1e-5, atol=1e-6)


def test_its_minimiser_for_a_gaussian_is_the_score():
    """u_0 ~ N(0, S): least squares of eps on u_t gives -sigma u / (S + sigma^2), sigma^2 times the score over sigma."""
    process, n, spread = HeatKernel((1, 1, 1), 10), 20_000, 0.8
    source = torch.Generator().manual_seed(0)
    u0, eps = torch.randn(2, n, 1, 1, 1, generator=source, dtype=torch.float64)
    for t in (0.1, 0.5, 1.0):
        time = torch.full((n,), t, dtype=torch.float64)
        noise = SimpleNamespace(normal_like=lambda u: eps)
        seen = []
        model = make(process, lambda u, k, cond: seen.append(u) or torch.zeros_like(u))
        model.times_for = lambda rng, time=time: time
        model.loss({"u0": spread * u0}, noise)
        slope = -(seen[0] * eps).sum() / seen[0].square().sum()
        sigma = process.std(time[:1]).item()
        assert slope.item() == pytest.approx(-sigma / (spread**2 + sigma**2), abs=4 / n**0.5)


def test_a_map_without_noise_is_refused():
    with pytest.raises(ConfigError, match=r"noise at each level of forward=heat; raise forward\.sigma"):
        make(Heat(SHAPE, 5, sigma=0.0), nn.Identity())


def test_a_map_that_loses_the_image_has_a_score_and_nothing_that_divides_by_it():
    kept, lost = HeatKernel(SHAPE, 5), ConstantVelocity(SHAPE, 5, sigma=0.2)
    hidden = shipped_map("random_velocity", SHAPE, 5, conditional=False)
    for process in (kept, lost, RandomMatrix(SHAPE, 5, sigma=0.2), hidden):
        model, u, t = make(process, nn.Identity()), torch.ones(1, *SHAPE), process.times[1:2]
        model.calibrate(None)  # nothing to measure
        if process is kept:
            make(process, nn.Identity(), sampler=ancestral)
            assert make(process, Exact(process)).denoise(u, t).isfinite().all()
            continue
        with pytest.raises(ConfigError, match=r"sampler=ode or sde"):
            make(process, nn.Identity(), sampler=ancestral)
        with pytest.raises(ConfigError, match=f"forward={process.name}"):
            model.denoise(u, t)


def test_a_scaled_input_needs_to_know_the_map():
    with pytest.raises(ConfigError, match=r"forward\.conditional=false"):
        make(shipped_map("random_velocity", SHAPE, 5, conditional=False), nn.Identity(), scale_input=True)


def test_the_network_sees_the_state_as_it_is_or_of_unit_size():
    process, seen = HeatKernel(SHAPE, 5), []
    u, t = 3 * torch.randn(64, *SHAPE), torch.full((64,), 0.6)
    for scaled in (False, True):
        make(process, lambda x, k, cond: seen.append(x) or x, scale_input=scaled).score(u, t)
    assert torch.equal(seen[0], u)
    size = (1 + process.std(t[:1]) ** 2).sqrt().to(u)  # of data of unit variance, before `prepare`
    assert_close(seen[1], u / size, rtol=1e-5, atol=1e-6)
