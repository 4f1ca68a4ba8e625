"""sampler=heun with the exact denoiser: its orders, DDIM in closed form, and maps of every kind."""

import numpy as np
import pytest
import torch
from gaussian_toys import Falling, end_law, exact_model, fields, gaussian, orders
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.levels import uniform
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.sampler.heun import heun

SHAPE = (1, 8, 8)
INNER = torch.linspace(0.05, 0.2, 5, dtype=torch.float64)


def flow(model, t, s):
    return (model.exactly.variance(s[None]) / model.exactly.variance(t[None]))[0].sqrt()


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("scheme", ["exact", "euler_maruyama"])
def test_it_converges_to_the_flow_with_its_order(order, scheme):
    model = exact_model(StochasticHeat(SHAPE, 8, scheme=scheme, euler_steps=None if scheme == "exact" else 4096), mean=0.5)
    limit = flow(model, INNER[-1], INNER[0])
    gains = [end_law(heun, model, INNER, 0, substeps=n, order=order)[0][0] for n in (8, 16, 32)]
    observed = orders([gain - limit for gain in gains])[-1]
    assert_close(observed, torch.full_like(observed, order), atol=0.06 if scheme == "exact" else 0.2, rtol=0)


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
def test_it_keeps_its_order_down_to_the_data_where_the_levels_are_finer_near_0(order):
    errors = []
    for num_levels in (32, 64, 128):
        model = exact_model(StochasticHeat(SHAPE, num_levels, spacing="quadratic"), mean=0.5)
        times = model.process.times
        errors.append(end_law(heun, model, times, 0, order=order)[0][0] - flow(model, times[-1], times[0]))
    observed = orders(errors)[-1]
    assert_close(observed, torch.full_like(observed, order), atol=0.06, rtol=0)


@pytest.mark.parametrize("order", [1, 2])
def test_the_offset_of_a_map_is_taken_along(order):
    model = exact_model(Falling(SHAPE, uniform(4), 0.3), mean=0.5)
    levels = torch.tensor([0.2, 1.0], dtype=torch.float64)
    u, oracle = fields(), model.exactly
    errors = [heun(model, u, levels, substeps=n, order=order) - oracle.flow(u, levels[1:], levels[:1]) for n in (32, 64)]
    assert orders([error.square().mean().sqrt() for error in errors])[0].item() == pytest.approx(order, abs=0.05)


def test_one_step_of_any_map_to_0_is_the_posterior_mean():
    maps = [
        ConstantVelocity(SHAPE, 4, sigma=0.2),
        StochasticHeat(SHAPE, 4),
        Heat(SHAPE, 4, sigma=0.1),
        RandomMatrix(SHAPE, 4, sigma=0.3),
        Falling(SHAPE, uniform(4), 0.3),
    ]
    u = fields()
    for process in maps:
        model = exact_model(process, mean=0.5)
        end = process.times[-1:]
        assert_close(heun(model, u, process.times[[0, -1]]), model.exactly.posterior_mean(u, end), atol=1e-9, rtol=0)


@pytest.mark.slow
def test_under_constant_velocity_it_ends_in_the_posterior_mean_of_the_flow_at_level_1():
    process = ConstantVelocity(SHAPE, 5, sigma=0.2)
    model, u = exact_model(process, mean=0.5), fields()
    errors = []
    for substeps in (20, 40, 80):
        levels = torch.cat([torch.zeros(1, dtype=torch.float64), torch.linspace(0.2, 1, 4 * substeps + 1).double()])
        expected = model.exactly.posterior_mean(model.exactly.flow(u, levels[-1:], levels[1:2]), levels[1:2])
        errors.append((heun(model, u, levels) - expected).square().mean().sqrt())
    assert errors[-1] < 1e-3
    assert [order.item() for order in orders(errors)] == pytest.approx([2, 2], abs=0.1)


@pytest.mark.parametrize("acts_on", ["rows", "channel"])
@pytest.mark.parametrize("order", [1, 2])
def test_a_map_of_matrices_is_followed_from_level_to_level(order, acts_on):
    process = RandomMatrix((1, 4, 4), 3, sigma=0.3, acts_on=acts_on)
    model, u = exact_model(process, gaussian((1, 4, 4), mean=0.5)), fields(shape=(1, 4, 4))
    waves = model.exactly.basis(torch.eye(16, dtype=torch.float64).reshape(16, 1, 4, 4)).flatten(1).mT.numpy()
    prior = waves.T @ np.diag(model.exactly.spectrum.flatten().numpy()) @ waves
    maps = [left.numpy() if acts_on == "channel" else np.kron(left.numpy(), np.eye(4)) for left in process.left]

    def clean(x, k):
        return prior @ maps[k].T @ np.linalg.solve(maps[k] @ prior @ maps[k].T + 0.09 * np.eye(16), x)

    x = u.flatten(1).numpy().T
    for k in (3, 2):
        v = clean(x, k)
        end = x + (maps[k - 1] - maps[k]) @ v
        if order == 2:
            end = x + (maps[k - 1] - maps[k]) @ (v + clean(end, k - 1)) / 2
        x = end
    expected = torch.from_numpy(clean(x, 1).T.copy()).reshape(u.shape)
    assert_close(heun(model, u, process.times, order=order), expected, atol=1e-9, rtol=0)


def test_levels_between_which_the_map_is_not_known_and_an_order_of_0_are_refused():
    model = exact_model(RandomMatrix(SHAPE, 3, sigma=0.3))
    with pytest.raises(ConfigError, match="forward=random_matrix"):
        heun(model, fields(), model.process.times, substeps=2)
    with pytest.raises(ConfigError, match=r"sampler\.order must"):
        heun(model, fields(), model.process.times, order=0)


@pytest.mark.parametrize("order", [0, 3])
def test_another_order_is_refused(order):
    model = exact_model()
    with pytest.raises(ConfigError, match=r"^sampler\.order must be "):
        heun(model, torch.zeros(1, 1, 8, 8), model.process.times, order=order)
