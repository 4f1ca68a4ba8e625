"""The way back of the Euclidean heat kernel: ODE and SDE by Euler's steps, against their closed forms, and strong order."""

import math
from types import SimpleNamespace

import pytest
import torch
from gaussian_toys import at, normal, orders
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.data.module import DataSpec, Mixture
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat_kernel import HeatKernel
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.model.oracle import Oracle
from heatgen.oracle.mixture import MixtureOracle
from heatgen.sampler.heun import heun
from heatgen.sampler.ode import ode
from heatgen.sampler.sde import sde

SHAPE = (1, 1, 1)


def exact_model(process, std=0.0, means=(0.0,)):
    """model=oracle for points of R: equal components of one width."""
    places = torch.tensor(means, dtype=torch.float64).reshape(-1, 1, 1, 1)
    count = len(places)
    law = Mixture(torch.full((count,), 1 / count).double(), places, torch.full((count,), std).double())
    model = Oracle(process, torch.nn.Identity(), None, None)
    model.oracle = MixtureOracle(process, DataSpec(tuple(process.shape), bits=None, mixture=law))
    return model


def path(sampler, model, u, noise=None, **options):
    """The state at every level, by number; u_K included."""
    states = {model.process.num_levels: u}
    sampler(model, u, model.process.times, noise, lambda k, u: states.update({k: u}), **options)
    return states


def start(n, process, seed=0):
    std = process.std(process.times[-1:].double())
    return std * torch.randn(n, *SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# one point: everything is a product ------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("n", "factor"), [(100, 0.053600), (200, 0.037952), (1000, 0.016992)])
def test_eulers_ode_ends_at_the_published_factor(n, factor):
    """The product of 1 - g_i^2 dt / (2 sigma_i^2) over t_i = 1 - i dt, to 1e-6, and to rounding by an own loop."""
    model = exact_model(HeatKernel(SHAPE, n))
    end = path(ode, model, torch.ones(1, *SHAPE).double(), step="euler")[0].item()
    assert end == pytest.approx(factor, abs=1e-6)
    times = [1 - i / n for i in range(n)]
    variance = [(1.1 ** (2 * t) - 1) / (2 * math.log(1.1)) for t in times]
    product = math.prod(1 - 1.1 ** (2 * t) / (2 * n * v) for t, v in zip(times, variance, strict=True))
    assert end == pytest.approx(product, abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize(("n", "std"), [(100, 0.72507), (200, 0.72468), (1000, 0.72437)])
def test_eulers_ode_has_its_own_width_at_half_time(n, std):
    """sigma(1) times the product over t_i > 1/2; the kernel's own width there is 0.724295."""
    process = HeatKernel(SHAPE, n)
    states = path(ode, exact_model(process), process.std(at(1.0)).double(), step="euler")
    assert states[n // 2].item() == pytest.approx(std, abs=5e-6)
    times = [1 - i / n for i in range(n // 2)]
    parts = [1 - 1.1 ** (2 * t) * math.log(1.1) / (n * (1.1 ** (2 * t) - 1)) for t in times]
    assert states[n // 2].item() == pytest.approx(process.std(at(1.0)).item() * math.prod(parts), abs=1e-12)


@pytest.mark.slow
def test_the_error_of_eulers_ode_at_half_time_is_of_first_order():
    exact = HeatKernel(SHAPE).std(at(0.5)).item() / HeatKernel(SHAPE).std(at(1.0)).item()
    errors = []
    for n in (100, 200, 400):
        states = path(ode, exact_model(HeatKernel(SHAPE, n)), torch.ones(1, *SHAPE).double(), step="euler")
        errors.append(states[n // 2].item() - exact)
    assert [order.item() for order in orders(errors)] == pytest.approx([1, 1], abs=0.02)


def test_heuns_flow_of_a_single_point_has_no_error_at_all():
    """E[x_0 | x_t] = 0 and eps = x / sigma never change along it: x sigma(s) / sigma(t), in any number of steps."""
    process = HeatKernel(SHAPE, 7)
    states = path(heun, exact_model(process), torch.ones(1, *SHAPE).double())
    for k, u in states.items():
        assert u.item() == pytest.approx((process.std(process.times[k : k + 1]) / process.std(at(1.0))).item(), abs=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("n", [100, 200])
def test_eulers_sde_has_mean_zero_and_the_width_of_its_recursion(n):
    """std 0.72572 at half time for n = 200, and 4e-5 at the end; the mean is 0 within 4 standard errors at every level."""
    process, count = HeatKernel(SHAPE, n), 20_000
    states = path(sde, exact_model(process), start(count, process), normal(1), step="euler")
    variance = process.std(at(1.0)).item() ** 2
    for k in range(n - 1, -1, -1):
        t = (k + 1) / n
        g2, v = 1.1 ** (2 * t), (1.1 ** (2 * t) - 1) / (2 * math.log(1.1))
        variance = variance * (1 - g2 / n / v) ** 2 + (g2 / n if k else 0)
        u = states[k].flatten()
        assert abs(u.mean().item()) < 4 * math.sqrt(variance / count) + 1e-12
        assert abs(u.var().item() / variance - 1) < 5 * math.sqrt(2 / count)
        if n == 200 and k == 100:
            assert math.sqrt(variance) == pytest.approx(0.72572, abs=2e-5)
        if n == 200 and k == 0:
            assert math.sqrt(variance) == pytest.approx(4e-5, rel=0.2)
            assert math.sqrt(variance + g2 / n) == pytest.approx(0.07074, abs=1e-5)  # with noise on the last step


# convergence ---------------------------------------------------------------------------------------------------------------


class Brownian:
    """The noise of `substeps` steps a level from one Brownian path on `fine` steps a level, the same for any substeps."""

    def __init__(self, n, fine, levels, substeps):
        source = torch.Generator().manual_seed(3)
        z = torch.randn(levels, substeps, fine // substeps, n, *SHAPE, generator=source, dtype=torch.float64)
        self.draws = iter((z.sum(2) / (fine // substeps) ** 0.5).flatten(0, 1))

    def normal_like(self, u):
        return next(self.draws)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["euler", "physics"])
@pytest.mark.parametrize("means", [(-1.0, 0.5)])
def test_euler_and_maruyama_are_of_strong_order_one(step, means):
    """Noise that does not depend on the state is additive: E|x_n - x|^2 falls with the square of the step, path by path."""
    process, n, fine = HeatKernel(SHAPE, 2), 400, 1024
    model, u = exact_model(process, 0.5, means), start(n, process)
    ends = {}
    for substeps in (16, 32, 64, fine):
        noise = Brownian(n, fine, 2, substeps)
        ends[substeps] = path(sde, model, u, noise, substeps=substeps, step=step)[1]  # at half time, before the last step
    errors = [(ends[substeps] - ends[fine]).square().mean().sqrt() for substeps in (16, 32, 64)]
    assert [order.item() for order in orders(errors)] == pytest.approx([1, 1], abs=0.12)
    assert errors[-1] < 0.02


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sampler", "options", "order"),
    [(ode, {"step": "euler"}, 1), (ode, {"step": "physics"}, 1), (heun, {"order": 1}, 1), (heun, {"order": 2}, 2)],
)
def test_the_flow_of_a_mixture_converges_with_the_order_of_its_steps(sampler, options, order):
    process = HeatKernel(SHAPE, 2)
    model, u = exact_model(process, 0.4, (-1.0, 0.5)), start(50, process)
    limit = path(heun, model, u, substeps=256)[1]
    errors = [(path(sampler, model, u, substeps=n, **options)[1] - limit).square().mean().sqrt() for n in (8, 16, 32)]
    assert [float(o) for o in orders(errors)] == pytest.approx([order] * 2, abs=0.12)


def test_samples_of_a_mixture_have_its_moments():
    process, n = HeatKernel(SHAPE, 100, clock="geometric", sigma_max=10.0), 8000
    model = exact_model(process, 0.3, (-1.0, 2.0))
    u = path(
        sde,
        model,
        process.perturb(
            torch.where(torch.arange(n) < n // 2, -1.0, 2.0).reshape(-1, 1, 1, 1).double()
            + 0.3 * normal(7).normal_like(torch.zeros(n, *SHAPE).double()),
            at(1.0, n),
            normal(8).normal_like(torch.zeros(n, *SHAPE).double()),
        ),
        normal(2),
    )[0].flatten()
    assert abs(u.mean().item() - 0.5) < 5 * 1.53 / n**0.5
    assert u.std().item() == pytest.approx(math.sqrt(1.5**2 + 0.3**2), rel=0.04)
    assert abs((u < 0.5).double().mean().item() - 0.5) < 5 * 0.5 / n**0.5


# Euler's steps on other maps -----------------------------------------------------------------------------------------------


def test_eulers_step_is_the_drift_and_the_diffusion_times_the_step():
    process = StochasticHeat((1, 4, 4), 8)
    model = exact_model(process, 0.5)
    u = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    t, s = at(0.1, 3), at(0.075, 3)
    for factor in (0.5, 1.0):
        slope = process.drift(u, t) - factor * process.g**2 * model.score(u, t)
        assert_close(model.euler_step(u, t, s, factor), u - 0.025 * slope)


def test_a_map_without_a_finite_drift_and_a_step_that_is_none_are_refused():
    model = exact_model(ConstantVelocity(SHAPE, 4, sigma=0.2), 0.5)
    with pytest.raises(ConfigError, match=r"forward=constant_velocity is not invertible.*sampler\.step=physics"):
        ode(model, torch.zeros(1, *SHAPE), model.process.times, step="euler")
    for sampler in (ode, sde):
        with pytest.raises(ConfigError, match=r"sampler\.step must be one of .*physics"):
            sampler(SimpleNamespace(process=None), torch.zeros(1, *SHAPE), at(0.0, 2), step="midpoint")
