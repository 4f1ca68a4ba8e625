"""The times that samplers visit: closed forms, ends, and what a map or a model has no times for."""

import pytest
import torch
from conftest import shipped_map
from torch.testing import assert_close

from heatgen.app.sampler_request import GRID
from heatgen.check import ConfigError
from heatgen.forward.noise_level import noise_to_signal
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.variance_exploding import VarianceExploding
from heatgen.model.grid import Grid
from heatgen.model.preconditioning import Preconditioning

SHAPE = (1, 4, 4)


def exploding(num_levels=20, low=0.001, high=40.0):
    return VarianceExploding(SHAPE, num_levels, sigma_min=low, sigma_max=high)


def test_the_config_has_the_defaults_of_the_class():
    assert vars(Grid()) == GRID


@pytest.mark.parametrize("grid", [Grid(), Grid(20)])
@pytest.mark.parametrize("any_time", [True, False])
def test_without_other_steps_the_times_are_the_levels_themselves(grid, any_time):
    for process in (exploding(), RandomMatrix(SHAPE, 20, sigma=0.3)):
        assert grid.times(process, any_time) is process.times


@pytest.mark.parametrize("steps", [1, 2, 3, 7, 18, 40])
def test_the_ratios_of_rho_are_those_of_karras(steps):
    process = exploding()
    i = torch.arange(steps, dtype=torch.float64)
    high, low = 40 ** (1 / 7), 0.001 ** (1 / 7)
    expected = (high + i / max(steps - 1, 1) * (low - high)) ** 7
    times = Grid(steps, "rho").times(process, True)
    assert times[0] == 0 and times[-1] == process.times[-1] and len(times) == steps + 1
    assert_close(process.std(times).flatten()[1:], expected.flip(0), rtol=1e-9, atol=0)


def test_a_ratio_beyond_40_counts_as_40_and_the_first_time_is_the_last_level():
    process = exploding(high=1000.0)
    times = Grid(9, "rho").times(process, True)
    assert times[-1] == process.times[-1]
    sigma = (40 ** (1 / 7) + 1 / 8 * (0.001 ** (1 / 7) - 40 ** (1 / 7))) ** 7
    assert noise_to_signal(process, times[-2:-1]).item() == pytest.approx(sigma)


@pytest.mark.parametrize("steps", [1, 2, 3, 9])
def test_steps_of_variance_give_back_equal_parts_of_it(steps):
    process, spectrum = shipped_map("heat", (1, 8, 8), 12, sigma=0.05), torch.linspace(1, 0.01, 64).double().reshape(1, 8, 8)
    known = Preconditioning(process, torch.zeros(1, 8, 8).double(), spectrum)
    times = Grid(steps, "variance").times(process, True, "toy", known)
    assert times[0] == 0 and times[-1] == process.times[-1] and len(times) == steps + 1
    gain = (-process.eigenvalues * times[1:].view(-1, 1, 1)).exp()
    removed = (spectrum[0] * 0.05**2 / (gain**2 * spectrum[0] + 0.05**2)).sum((1, 2)) / spectrum.sum()
    if steps > 1:
        assert times[1] == process.times[1]
        assert_close(removed.diff(), (removed[-1] - removed[0]).expand(steps - 1) / (steps - 1), rtol=1e-9, atol=0)


def test_uniform_is_uniform_in_time_and_level_in_the_number_of_the_level():
    process = shipped_map("stochastic_heat", SHAPE, 12, spacing="quadratic")
    assert_close(Grid(5, "uniform").times(process, True), process.times[-1] * torch.linspace(0, 1, 6).double())
    for steps in (1, 5, 8, 30):
        levels = process.level(Grid(steps).times(process, True))
        assert_close(levels, torch.linspace(0, 12, steps + 1).double(), atol=1e-6, rtol=0)
    assert torch.equal(Grid(4).times(process, True), process.times[::3])  # bit for bit where there are levels


@pytest.mark.parametrize("steps", range(1, 13))
def test_the_nearest_levels_are_distinct_where_they_alone_are_known(steps):
    process, matrices = exploding(12), RandomMatrix(SHAPE, 12, sigma=0.3)
    for found in (Grid(steps).times(process, False), Grid(steps).times(matrices, True) * 1.0):
        own = process.times if found[-1] == process.times[-1] else matrices.times
        levels = [own.tolist().index(time) for time in found.tolist()]
        assert len(set(levels)) == steps + 1 and levels[0] == 0 and levels[-1] == 12
        assert all(abs(level - 12 * i / steps) <= 0.5 for i, level in enumerate(levels))


@pytest.mark.parametrize(
    ("grid", "process", "any_time", "words"),
    [
        (
            Grid(13),
            exploding(12),
            False,
            "sampler.steps=13 must be at most K = 12, as model=toy is known at its levels; null takes all.",
        ),
        (Grid(13), RandomMatrix(SHAPE, 12), True, "sampler.steps=13 must be at most K = 12, as forward=random_matrix "),
        (Grid(3, "rho"), exploding(), False, "sampler.spacing=rho needs times between the levels, and model=toy has none"),
        (Grid(3, "uniform"), RandomMatrix(SHAPE, 12), True, "sampler.spacing=uniform .* forward=random_matrix has none"),
        (Grid(3, "rho"), RandomVelocity(SHAPE, 12), True, "sampler.spacing=rho .* forward=random_velocity is drawn"),
        (Grid(3, "rho"), shipped_map("identity", SHAPE, 12), True, "sampler.spacing=rho .* forward=identity "),
        (Grid(3, "variance"), exploding(), True, "sampler.spacing=variance .* which this model=toy has not measured"),
        (Grid(400, "rho", 1e16), exploding(), True, "sampler.steps=400 .* coincide in float32; use fewer sampler.steps"),
        (Grid(3, "rho", 1e-9), exploding(), True, "sampler.steps=3 .* coincide in float32; use fewer sampler.steps"),
        (Grid(None, "rho"), exploding(12, 50.0, 60.0), True, "sampler.steps=12 .* coincide"),
    ],
)
def test_times_that_are_not_there_are_refused_by_name(grid, process, any_time, words):
    with pytest.raises(ConfigError, match=words):
        grid.times(process, any_time, "toy")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"steps": 0}, "sampler.steps must be a whole number of at least 1, not 0"),
        ({"steps": 2.5}, "sampler.steps must be a whole number"),
        ({"steps": True}, "sampler.steps must be a whole number"),
        ({"steps": [5, 10]}, "sampler.steps must be a whole number"),
        ({"steps": 10**6}, "sampler.steps must be at most 100000"),
        ({"spacing": "karras"}, "sampler.spacing must be one of level, uniform, rho, variance"),
        ({"spacing": "rho", "rho": 0}, "sampler.rho must be a number greater than 0"),
        ({"spacing": "rho", "rho": float("inf")}, "sampler.rho must be a number"),
        ({"rho": 5}, "sampler.rho=5 is for sampler.spacing=rho"),
    ],
)
def test_values_out_of_range_are_refused(options, words):
    with pytest.raises(ConfigError, match=words):
        Grid(**options)


def test_a_whole_number_may_be_written_as_a_float():
    assert Grid(5.0) == Grid(5) and isinstance(Grid(5.0).steps, int)
