"""The maps that scale an image by one number, and the refusals and warnings of validate()."""

import warnings

import pytest
import torch
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.identity import Identity
from heatgen.forward.levels import uniform
from heatgen.forward.process import ObservedProcess

SHAPE = (2, 6, 9)


class Map(ObservedProcess):
    """A map with any gain, a function of t."""

    def __init__(self, gain, times=None, sigma=0.01, **methods):
        super().__init__(SHAPE, uniform(10) if times is None else torch.as_tensor(times), sigma)
        self.scale = gain
        for name, method in methods.items():
            setattr(self, name, lambda t, method=method: method(self.column(t)))

    def gain(self, t):
        return self.scale(self.column(t))


def field(batch=3):
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.mark.parametrize("num_levels", [2, 10, 100])
def test_constant_velocity_keeps_all_then_half_then_nothing(num_levels):
    process, u0 = ConstantVelocity(SHAPE, num_levels), field()
    t = process.times[[0, num_levels // 2, num_levels]]
    assert_close(process.gain(t).flatten(), torch.tensor([1, 0.5, 0]).double(), atol=1e-15, rtol=0)
    assert_close(process.mean(u0, t), torch.stack([u0[0], u0[1] / 2, 0 * u0[2]]), atol=1e-15, rtol=0)


def test_constant_velocity_moves_by_minus_the_image_in_a_unit_of_time():
    process, u0, t = ConstantVelocity(SHAPE, sigma=0.3), field(), torch.tensor([0.2, 0.5, 0.9]).double()
    assert_close(process.drift(process.mean(u0, t), t), -u0, atol=1e-13, rtol=0)
    expected = 2 * 0.3**2 / (1 - process.column(t))
    assert_close(process.diffusion(t) ** 2, expected, atol=1e-13, rtol=0)


def test_constant_velocity_has_no_step_from_its_last_level():
    process, u0 = ConstantVelocity(SHAPE, num_levels=5), field(1)
    last = process.times[-1:]
    for move in (process.step, process.increment):
        with pytest.raises(ConfigError, match="forward=constant_velocity is not invertible"):
            move(process.mean(u0, last), last, last)


def test_identity_only_adds_its_noise():
    process, u0, t = Identity(SHAPE, sigma=0.3), field(), torch.tensor([0, 0.2, 1]).double()
    assert_close(process.mean(u0, t), u0, atol=0, rtol=0)
    assert_close(process.noise(u0, t), torch.stack([0 * u0[0], 0.3 * u0[1], 0.3 * u0[2]]), atol=1e-15, rtol=0)


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("forward.num_levels", {"num_levels": "abc"}),
        ("forward.num_levels", {"num_levels": 0}),
        ("forward.sigma", {"sigma": -1}),
        ("forward.sigma", {"sigma": "small"}),
        ("data.shape", {"shape": 28}),
        ("data.shape", {"shape": []}),
    ],
)
@pytest.mark.parametrize("kind", [ConstantVelocity, Identity])
def test_a_wrong_value_is_refused_by_the_name_of_its_key(kind, key, values):
    with pytest.raises(ConfigError, match=rf"^{key} must"):
        kind(**{"shape": SHAPE, **values})


def test_identity_warns_that_it_destroys_nothing():
    with pytest.warns(UserWarning, match="forward=identity keeps every coefficient.*copies of training images"):
        Identity(SHAPE).validate()


@pytest.mark.parametrize("process", [Heat((1, 8, 8)), ConstantVelocity(SHAPE), Identity(SHAPE, sigma=0.26)])
def test_maps_that_destroy_something_validate_without_a_warning(process):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        process.validate()


@pytest.mark.parametrize(
    ("process", "message"),
    [
        (Map(lambda t: t**2 - t), r"A\(0\) != I"),
        (Map(lambda t: 1.001 + t), r"A\(0\) != I"),
        (Map(lambda t: 1 - t, offset=lambda t: 0.01 + t), r"A\(0\) != I"),
        (Map(lambda t: (200 * t).exp()), "not finite at level 5 of 10"),
        (Map(lambda t: (t - 0.15).sqrt() / (t - 0.15).sqrt()), "not finite at level 0 of 10"),
        (Map(lambda t: 1 - t, std=lambda t: 1 / (0.3 - t).clamp(min=0)), "not finite at level 3 of 10"),
        (Map(lambda t: 1 - t, offset=lambda t: t / (t < 0.75)), "not finite at level 8 of 10"),
        (Map(lambda t: 1 - t, times=[0.1, 0.5, 1.0]), "ascend strictly from 0"),
        (Map(lambda t: 1 - t, times=[0.0, 0.5, 0.5]), "ascend strictly from 0"),
        (Map(lambda t: 1 - t, times=[0.0, 0.7, 0.5]), "ascend strictly from 0"),
    ],
)
def test_validate_refuses_a_map_that_breaks_the_law(process, message):
    with pytest.raises(ConfigError, match=message):
        process.validate()


def test_a_map_with_an_offset_steps_along_its_own_mean():
    process = Map(lambda t: 1 - t / 2, offset=lambda t: t**2)
    u0, s, t = field(), torch.tensor([0.0, 0.3, 0.5]).double(), torch.tensor([0.2, 0.4, 1.0]).double()
    assert_close(process.mean(u0, t), (1 - process.column(t) / 2) * u0 + process.column(t) ** 2, atol=1e-15, rtol=0)
    assert_close(process.step(process.mean(u0, s), s, t, 0 * u0), process.mean(u0, t), atol=1e-14, rtol=0)
    drift = process.drift(process.mean(u0, t), t)
    assert_close(drift, -u0 / 2 + 2 * process.column(t), atol=1e-13, rtol=0)


def test_no_step_exists_where_the_noise_would_have_to_shrink():
    process, u0, s, t = Map(lambda t: 1 + t), field(1), torch.tensor([0.5]).double(), torch.tensor([0.6]).double()
    with pytest.raises(ConfigError, match="the noise would have to shrink"):
        process.step(u0, s, t)
