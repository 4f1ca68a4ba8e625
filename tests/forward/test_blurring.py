"""forward=blurring: the cosine schedule of its noise, the width of its blur, and the two together."""

import math
import warnings

import pytest
import torch
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.blurring import Blurring
from heatgen.forward.heat import Heat

SHAPE = (2, 6, 9)
TIMES = torch.tensor([1e-9, 0.1, 0.25, 0.5, 0.8, 1.0], dtype=torch.float64)


def field(batch=6):
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def kept(process, t):
    """a(t), what noise leaves of the constant image, which no blur touches."""
    return process.gain(t)[..., :1, :1]


def log_snr(process, t):
    return (kept(process, t) ** 2 / process.std(t) ** 2).log().flatten()


def test_the_noise_preserves_the_variance():
    process = Blurring(SHAPE, 100)
    assert_close(kept(process, process.times) ** 2 + process.std(process.times) ** 2, torch.ones(101, 1, 1, 1).double())


@pytest.mark.parametrize("limit", [10.0, 4.0])
def test_the_log_of_signal_over_noise_falls_from_its_maximum_to_its_negative(limit):
    process = Blurring(SHAPE, log_snr_max=limit)
    ends = log_snr(process, torch.tensor([1e-12, 0.5, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([limit, 0, -limit], abs=1e-6)


def test_the_schedule_in_between_is_the_cosine_one():
    low, high = math.atan(math.exp(-5)), math.atan(math.exp(5))
    expected = [-2 * math.log(math.tan(low + t * (high - low))) for t in TIMES.tolist()]
    assert log_snr(Blurring(SHAPE), TIMES).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("width", [20.0, 3.0])
def test_without_its_noise_it_is_heat_of_the_stated_width(width):
    process, u0 = Blurring(SHAPE, sigma_max=width, d_min=0), field()
    blurred = process.mean(u0, TIMES) / (1 - process.std(TIMES) ** 2).sqrt()
    widths = width * (math.pi * TIMES / 2).sin() ** 2
    assert_close(blurred, Heat(SHAPE).mean(u0, widths**2 / 2), atol=1e-12, rtol=0)


def test_a_cosine_fades_at_its_own_rate_but_never_below_the_floor():
    process = Blurring(SHAPE, sigma_max=2.0, d_min=0.1)
    n, m, t = 3, 2, 0.4
    i, j = torch.arange(6).double()[:, None], torch.arange(9).double()[None, :]
    wave = ((math.pi * (i + 0.5) * n / 6).cos() * (math.pi * (j + 0.5) * m / 9).cos()).expand(1, 2, 6, 9)
    time = torch.tensor([t], dtype=torch.float64)
    width = 2 * math.sin(math.pi * t / 2) ** 2
    fade = 0.9 * math.exp(-(math.pi**2) * (n**2 / 36 + m**2 / 81) * width**2 / 2) + 0.1
    assert_close(process.mean(wave, time), fade * kept(process, time) * wave, atol=1e-13, rtol=0)


@pytest.mark.parametrize("floor", [0.001, 0.2])
def test_the_widest_blur_leaves_the_floor_of_every_wave(floor):
    process, end = Blurring(SHAPE, sigma_max=1000.0, d_min=floor), TIMES[-1:]
    left = (process.gain(end) / kept(process, end)).flatten()
    assert_close(left, torch.tensor([1.0] + [floor] * 53, dtype=torch.float64), atol=1e-12, rtol=0)


def test_a_floor_of_1_leaves_noise_alone():
    process, u0 = Blurring(SHAPE, d_min=1), field()
    assert_close(process.mean(u0, TIMES), kept(process, TIMES) * u0, atol=1e-13, rtol=0)


def test_at_time_0_it_is_exactly_the_image():
    process, u0, t = Blurring(SHAPE), field(), torch.zeros(len(TIMES), dtype=torch.float64)
    assert torch.equal(process.gain(t), torch.ones(len(TIMES), 1, *SHAPE[1:]).double())
    assert not process.std(t).any()
    assert_close(process.perturb(u0, t), u0, atol=1e-14, rtol=0)


def test_every_wave_only_fades_and_the_noise_only_grows():
    process = Blurring(SHAPE, 100)
    assert (process.gain(process.times).diff(dim=0) < 0).all()
    assert (process.std(process.times).diff(dim=0) > 0).all()


def test_every_level_can_be_reached_from_the_one_before():
    process, u0 = Blurring(SHAPE, 100), field(1)
    for s, t in zip(process.times[:-1].split(1), process.times[1:].split(1), strict=True):
        state = process.step(process.mean(u0, s), s, t, 0 * u0)
        assert_close(state, process.mean(u0, t), atol=1e-12, rtol=0)


def test_it_ends_in_white_noise_of_variance_1():
    process = Blurring(SHAPE)
    assert process.std(TIMES[-1:]).item() == pytest.approx(1, abs=1e-4)
    assert process.gain(TIMES[-1:]).max().item() == pytest.approx(math.exp(-5), rel=1e-4)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        process.validate()


def test_a_wrong_value_is_refused_by_the_name_of_its_key():
    for key, value in [
        ("sigma_max", -1),
        ("sigma_max", "wide"),
        ("d_min", -0.1),
        ("d_min", 1.1),
        ("d_min", None),
        ("log_snr_max", 0),
        ("log_snr_max", math.inf),
        ("num_levels", 0),
        ("num_levels", 2.5),
    ]:
        with pytest.raises(ConfigError, match=rf"^forward\.{key} must be"):
            Blurring(SHAPE, **{key: value})
