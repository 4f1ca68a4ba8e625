"""sampler=multistep with the exact denoiser: its orders over maps of every kind, one call a step, and what it refuses."""

import pytest
import torch
from conftest import shipped_map
from gaussian_toys import Falling, exact_model, fields, gaussian, normal, orders
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.forward.levels import uniform
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.sampler.heun import heun
from heatgen.sampler.multistep import multistep, weights

SHAPE = (1, 8, 8)
MAPS = {  # options, and the part of the levels that is gone back over, in 32nds
    "variance_exploding": ({}, 3, 32),
    "flow": ({}, 3, 29),
    "hdfm": ({}, 3, 29),
    "blurring": ({"sigma_max": 1.0}, 3, 29),  # which 100 levels resolve; 20 pixels on a field of 8 take 1000
    "stochastic_heat": ({}, 3, 32),
}


def error(process, times, order, boundary="neumann"):
    """Root mean square distance to the exact flow of states that start as those of the law."""
    model = exact_model(process, gaussian(SHAPE, boundary, mean=0.5))
    variance = model.exactly.variance(times[-1:])
    u = model.exactly.centre(fields(), times[-1:]) + model.exactly.basis.inverse(variance.sqrt() * fields())
    gap = multistep(model, u, times, order=order) - model.exactly.flow(u, times[-1:], times[:1])
    return gap.square().mean().sqrt()


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, 3])
@pytest.mark.parametrize("name", MAPS)
def test_it_converges_to_the_flow_of_any_map_with_its_order(name, order):
    errors, (options, low, high) = [], MAPS[name]
    for n in (2, 4):
        process = shipped_map(name, SHAPE, 32 * n, **options)
        boundary = "periodic" if name == "stochastic_heat" else "neumann"
        errors.append(error(process, process.times[low * n : high * n + 1], order, boundary))
    assert orders(errors)[-1].item() == pytest.approx(order, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, 3])
def test_it_keeps_its_order_on_a_grid_of_uneven_steps(order):
    errors = []
    for n in (8, 16):
        process = shipped_map("flow", SHAPE, 32 * n)
        kept = [k for k in range(3 * n, 29 * n + 1) if k % 4 in (0, 1)]  # steps of 1 and 3 levels in turn
        errors.append(error(process, process.times[kept], order))
    assert orders(errors)[-1].item() == pytest.approx(order, abs=0.2)


@pytest.mark.slow
@pytest.mark.parametrize(("order", "expected"), [(2, 2), (3, 2)])
def test_down_to_the_data_its_order_is_at_most_2_even_with_short_last_steps(order, expected):
    """The last step, to L = 0, is of order 1: its error is the square of its length, 1 / K^2 with quadratic levels."""
    errors = []
    for num_levels in (32, 64):
        process = shipped_map("stochastic_heat", SHAPE, num_levels, spacing="quadratic")
        errors.append(error(process, process.times, order, "periodic"))
    assert orders(errors)[-1].item() > expected - 0.1


@pytest.mark.slow
@pytest.mark.parametrize("order", [2, 3])
def test_the_offset_of_a_map_is_taken_along(order):
    process = Falling(SHAPE, uniform(128), 0.3)
    errors = [error(process, process.times[25::step].clone(), order) for step in (2, 1)]
    assert orders(errors)[0].item() == pytest.approx(order, abs=0.15)


def test_of_order_1_it_is_ddim():
    for process in (shipped_map("flow", SHAPE, 6), Heat(SHAPE, 6, sigma=0.1), RandomMatrix(SHAPE, 3, sigma=0.3)):
        model, u = exact_model(process, mean=0.5), fields()
        assert_close(multistep(model, u, process.times, order=1), heun(model, u, process.times, order=1), atol=1e-9, rtol=0)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_a_single_point_is_reached_without_an_error_from_anywhere(order):
    process = shipped_map("blurring", SHAPE, 5)
    model, point = exact_model(process, mean=0.0), fields(1)
    model.denoise = lambda u, t: point.expand_as(u)
    start = process.times[-1:]
    u = process.perturb(point, start, fields(1, SHAPE))
    states = {}
    multistep(model, u, process.times, None, lambda k, state: states.update({k: state}), order=order)
    eps = model.noise_estimate(u, start, point)
    for k, state in states.items():
        assert_close(state, process.perturb(point, process.times[k : k + 1], eps), atol=1e-9, rtol=0)


@pytest.mark.parametrize("order", [1, 2, 3])
def test_it_asks_for_one_estimate_a_step(order):
    model, asked = exact_model(shipped_map("flow", SHAPE, 6), gaussian(SHAPE, "neumann")), []
    exact = model.denoise
    model.denoise = lambda u, t: (asked.append(t[0].item()), exact(u, t))[1]
    multistep(model, fields(), model.process.times, order=order)
    assert asked == model.process.times.flip(0)[:-1].tolist()


def test_order_2_follows_matrices_by_the_rule_of_adams_and_bashforth():
    process = RandomMatrix((1, 4, 4), 4, sigma=0.3)
    model, u = exact_model(process, gaussian((1, 4, 4), mean=0.5)), fields(shape=(1, 4, 4))
    times, before, expected = process.times, None, u
    for k in (4, 3, 2):
        v = model.denoise(expected, times[k : k + 1])
        ahead = v if before is None else 1.5 * v - 0.5 * before
        t, s, before = times[k : k + 1], times[k - 1 : k], v
        expected = expected + process.mean(ahead, s) - process.mean(ahead, t)
    found = {}
    multistep(model, u, times, None, lambda k, state: found.update({k: state}), order=2)
    assert_close(found[1], expected, atol=1e-9, rtol=0)
    assert_close(found[0], model.denoise(found[1], times[1:2]), atol=1e-9, rtol=0)


def test_its_weights_integrate_polynomials_exactly():
    """The integral of x^2 d(x^2) from 5 to 3 through nodes 5, 6.5, 9, and of x dx^2 through the ends 3, 5, 6."""
    nodes, ends = torch.tensor([5.0, 6.5, 9.0]).double(), torch.tensor([3.0, 5.0, 6.0]).double()
    found = weights(nodes.tolist(), ends.tolist())
    assert (nodes**2 @ found @ ends**2).item() == pytest.approx((3**4 - 5**4) / 2, abs=1e-9)
    assert (nodes @ found @ ends**2).item() == pytest.approx(2 * (3**3 - 5**3) / 3, abs=1e-9)
    assert_close(found.sum(0), torch.tensor([1.0, -1.0, 0.0]).double(), atol=1e-12, rtol=0)
    assert weights([7.0, 8.0], [6.0, 7.0])[:, 0].tolist() == pytest.approx([1.5, -0.5])


@pytest.mark.parametrize(("order", "words"), [(0, "of at least 1"), (4, "at most 3"), (2.5, "whole number"), ("2", "whole")])
def test_another_order_is_refused(order, words):
    with pytest.raises(ConfigError, match=rf"^sampler\.order must be .*{words}"):
        multistep(exact_model(), normal(1).normal_like(torch.zeros(1, *SHAPE)), exact_model().process.times, order=order)
