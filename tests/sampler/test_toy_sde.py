"""The affine toy of score matching with physics: two points, du = -l u dt + g dW, and the way back from their exact score.

Source: Holzschuh et al. 2023, the toy experiment.
"""

from types import SimpleNamespace

import pytest
import torch
from gaussian_toys import normal

from heatgen.forward.levels import power
from heatgen.forward.process import ForwardProcess
from heatgen.model.score import ScoreMethod
from heatgen.sampler.ode import ode
from heatgen.sampler.sde import sde

RATE, G, END = 0.5, 0.04, 10.0


class Affine(ForwardProcess):
    """u_t = exp(-l t) u_0 + g sqrt((1 - exp(-2 l t)) / (2 l)) eps."""

    def __init__(self, num_levels):
        super().__init__((1, 1, 1), power(num_levels, END))

    def gain(self, t):
        return (-RATE * self.column(t)).exp()

    def std(self, t):
        return G * (-torch.expm1(-2 * RATE * self.column(t)) / (2 * RATE)).sqrt()


def log_density(process, u, t):
    """log p_t(u) of u_0 = 1 or -1, each with probability 1/2, but for a constant."""
    m, variance = process.gain(t), process.std(t) ** 2
    return torch.logaddexp(-((u - m) ** 2) / (2 * variance), -((u + m) ** 2) / (2 * variance))


def score(process, u, t):
    """(m tanh(m u / V) - u) / V."""
    m, variance = process.gain(t), process.std(t) ** 2
    return (m * torch.tanh(m * u / variance) - u) / variance


def model(process):
    toy = SimpleNamespace(process=process, score=lambda u, t: score(process, u, t))
    toy.physics_step = lambda *arguments: ScoreMethod.physics_step(toy, *arguments)
    return toy


def test_the_score_is_the_gradient_of_the_density():
    process = Affine(4)
    u = torch.linspace(-1.5, 1.5, 7).double().reshape(-1, 1, 1, 1).requires_grad_()
    t = torch.full((7,), 2.0).double()
    (gradient,) = torch.autograd.grad(log_density(process, u, t).sum(), u)
    assert torch.allclose(score(process, u, t), gradient)


@pytest.mark.parametrize("sampler", [sde, ode])
def test_the_way_back_ends_at_the_two_points_each_half_of_the_time(sampler):
    process, n = Affine(400), 1000
    start = process.std(process.times[-1:]) * normal().normal_like(torch.empty(n, 1, 1, 1).double())
    end = sampler(model(process), start, process.times, normal(1)).flatten()
    assert ((end.abs() - 1).abs() < 0.1).double().mean() > 0.99
    share = (end > 0).double().mean().item()
    assert 2 * min(share, 1 - share) > 1 - 4 / n**0.5  # the paper's Q, within 4 standard errors


def test_a_trajectory_has_the_closed_form_of_its_moments():
    process = Affine(50)
    u, noise = torch.ones(4000, 1, 1, 1).double(), normal(2)
    for s, t in zip(process.times[:-1], process.times[1:], strict=True):
        u = process.step(u, s.expand(len(u)), t.expand(len(u)), noise.normal_like(u))
    last, error = process.times[-1:], 4 / len(u) ** 0.5
    assert abs(u.mean() - process.gain(last)).item() < error * process.std(last).item()
    assert (u.var() / process.std(last) ** 2).item() == pytest.approx(1, abs=error * 2**0.5)
