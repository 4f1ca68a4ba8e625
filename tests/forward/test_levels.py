"""The spacings of levels against the published schedules of inverse heat dissipation."""

import math

import pytest
import torch

from heatgen.forward.heat import Heat
from heatgen.forward.levels import blur_widths, logarithmic, power, uniform

SCHEDULES = {  # K, sigma_max: ratio of neighbours, t_K, sigma_B at K/2
    "mnist": (100, 20, 1.0379643, 200, 3.104),
    "small_mnist": (50, 20, 1.0781895, 200, 3.045),
    "cifar10": (200, 24, 1.0196437, 288, 3.431),
    "afhq64": (200, 32, 1.0211188, 512, 3.958),
    "ffhq128": (200, 128, 1.0282571, 8192, 7.889),
    "lsun128": (400, 64, 1.0122347, 2048, 5.623),
}


@pytest.mark.parametrize(("num_levels", "largest", "ratio", "end", "middle"), SCHEDULES.values(), ids=SCHEDULES)
def test_blur_widths_are_those_of_the_published_configurations(num_levels, largest, ratio, end, middle):
    widths = blur_widths(num_levels, 0.5, largest)
    assert widths.dtype == torch.float64
    assert widths.shape == (num_levels + 1,)
    assert widths[0] == 0
    assert widths[1].item() == pytest.approx(0.5, abs=1e-12)
    assert (widths[2:] / widths[1:-1]).tolist() == pytest.approx([ratio] * (num_levels - 1), abs=1e-7)
    assert widths[num_levels // 2].item() == pytest.approx(middle, abs=6e-4)
    assert widths[-1].item() == pytest.approx(largest, abs=1e-12)
    assert (widths.diff() > 0).all()


@pytest.mark.parametrize(("num_levels", "largest", "second"), [(100, 20, 0.51898216), (200, 24, 0.50982186)])
def test_the_second_blur_width_is_that_of_the_original_code(num_levels, largest, second):
    assert blur_widths(num_levels, 0.5, largest)[2].item() == pytest.approx(second, abs=5e-9)


@pytest.mark.parametrize(("num_levels", "largest", "ratio", "end", "middle"), SCHEDULES.values(), ids=SCHEDULES)
def test_the_clock_of_heat_is_half_the_squared_blur_width(num_levels, largest, ratio, end, middle):
    times = Heat((1, 8, 8), num_levels=num_levels, sigma_max=largest).times
    assert times[[0, 1, -1]].tolist() == pytest.approx([0, 0.125, end], rel=1e-12)
    assert (2 * times[num_levels // 2]).sqrt().item() == pytest.approx(middle, abs=6e-4)


@pytest.mark.parametrize(("num_levels", "end"), [(1, 1.0), (7, 1.0), (4, 2.5)])
def test_uniform_levels_are_fractions_of_the_end(num_levels, end):
    levels = uniform(num_levels, end)
    assert levels.dtype == torch.float64
    assert levels.tolist() == pytest.approx([end * k / num_levels for k in range(num_levels + 1)], abs=1e-15)


@pytest.mark.parametrize(("num_levels", "end", "exponent"), [(1, 1.0, 2.0), (7, 0.2, 2.0), (5, 3.0, 0.5), (4, 2.0, 1.0)])
def test_power_levels_are_powers_of_the_fractions(num_levels, end, exponent):
    levels = power(num_levels, end, exponent)
    assert levels.dtype == torch.float64
    assert levels.tolist() == pytest.approx([end * (k / num_levels) ** exponent for k in range(num_levels + 1)], rel=1e-14)


def test_power_levels_are_finer_near_0_for_exponents_above_1_and_coarser_below():
    assert (power(9, 2.0).diff().diff() > 0).all()
    assert (power(9, 2.0, 0.5).diff().diff() < 0).all()


@pytest.mark.parametrize(("num_levels", "end", "offset"), [(1, 1.0, 0.1), (7, 0.2, 0.1), (5, 3.0, 2.0)])
def test_logarithmic_levels_are_even_in_their_logarithm_the_other_way_round(num_levels, end, offset):
    levels = logarithmic(num_levels, end, offset)
    assert levels.dtype == torch.float64
    assert levels[[0, -1]].tolist() == pytest.approx([0, end], abs=1e-15)
    grown = offset * ((1 + end / offset) ** (levels / end) - 1)  # back from the logarithm: even steps of time
    assert grown.tolist() == pytest.approx([end * k / num_levels for k in range(num_levels + 1)], abs=1e-14)


def test_logarithmic_levels_are_coarser_near_0_and_even_for_a_large_offset():
    levels = logarithmic(32, 0.2)
    assert (levels.diff().diff() < 0).all()
    assert (levels[1] / 0.2).item() == pytest.approx(math.log(1.0625) / math.log(3), rel=1e-12)
    assert logarithmic(32, 0.2, offset=1e6).tolist() == pytest.approx(uniform(32, 0.2).tolist(), abs=1e-8)
