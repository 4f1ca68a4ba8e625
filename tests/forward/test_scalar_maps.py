"""The maps that scale an image by one number, and the refusals and warnings of validate()."""

import warnings

import pytest
import torch
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.constant_deceleration import ConstantDeceleration
from heatgen.forward.constant_velocity import ConstantVelocity
from heatgen.forward.heat import Heat
from heatgen.forward.identity import Identity
from heatgen.forward.kinematics import Kinematics
from heatgen.forward.levels import uniform
from heatgen.forward.polynomial import Polynomial
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
        with pytest.raises(ConfigError, match=r"forward=constant_velocity .*invertible"):
            move(process.mean(u0, last), last, last)


def test_identity_only_adds_its_noise():
    process, u0, t = Identity(SHAPE, sigma=0.3), field(), torch.tensor([0, 0.2, 1]).double()
    assert_close(process.mean(u0, t), u0, atol=0, rtol=0)
    noise = process.scale_coefficients(u0, process.std(t))
    assert_close(noise, torch.stack([0 * u0[0], 0.3 * u0[1], 0.3 * u0[2]]), atol=1e-15, rtol=0)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


def halves(process):
    """The gain at the start, half way and at the end."""
    return process.gain(process.times[[0, process.num_levels // 2, process.num_levels]]).flatten()


@pytest.mark.parametrize("num_levels", [2, 10, 100])
def test_constant_deceleration_keeps_all_then_a_quarter_then_nothing(num_levels):
    process, u0 = ConstantDeceleration(SHAPE, num_levels), field()
    assert_close(halves(process), column(1, 0.25, 0), atol=1e-15, rtol=0)
    t = process.times[[0, num_levels // 2, num_levels]]
    assert_close(process.mean(u0, t), torch.stack([u0[0], u0[1] / 4, 0 * u0[2]]), atol=1e-15, rtol=0)


def test_constant_deceleration_starts_at_minus_twice_the_image_and_comes_to_rest():
    process, u0, h = ConstantDeceleration(SHAPE, sigma=0.3), field(), 1e-4
    t = column(0.0, 0.25, 0.999)
    speed = -2 * (1 - process.column(t))
    assert_close(process.drift(process.mean(u0, t), t), speed * u0, atol=1e-12, rtol=0)
    states = [process.mean(u0, t + j * h) for j in range(3)]
    assert_close((states[2] - 2 * states[1] + states[0]) / h**2, 2 * u0, atol=1e-6, rtol=0)
    inner = t[1:]
    assert_close(process.diffusion(inner) ** 2, 4 * 0.3**2 / (1 - process.column(inner)), atol=1e-9, rtol=1e-12)


def test_constant_deceleration_seen_as_noise_on_the_image_explodes_gently():
    process = ConstantDeceleration(SHAPE, num_levels=100, sigma=0.01)
    levels = process.times[[50, 90, 95, 99]]
    noise = (process.std(levels) / process.gain(levels)).flatten()
    assert noise.tolist() == pytest.approx([0.04, 1, 4, 100], rel=1e-9)


def test_the_literal_deceleration_is_refused_with_the_reason():
    with pytest.raises(ConfigError, match=r"^forward\.literal=true.*A\(0\) = 0 != I.*remove it"):
        ConstantDeceleration(SHAPE, literal=True)


@pytest.mark.parametrize(
    ("velocity", "acceleration", "gains"),
    [(-1, 2, (1, 0.75, 1)), (-1, 0, (1, 0.5, 0)), (-2, 2, (1, 0.25, 0)), (0, 0, (1, 1, 1)), (-3, 1, (1, -0.375, -1.5))],
)
def test_a_polynomial_has_any_velocity_and_acceleration(velocity, acceleration, gains):
    process, u0 = Polynomial(SHAPE, 10, velocity=velocity, acceleration=acceleration), field()
    assert_close(halves(process), column(*gains), atol=1e-15, rtol=0)
    t = process.times[[0, 5, 10]]
    assert_close(process.mean(u0, t), process.column(column(*gains)) * u0, atol=1e-15, rtol=0)


def test_singular_values_of_a_negative_gain_are_positive():
    process = Polynomial(SHAPE, 10, velocity=-3, acceleration=1)
    assert process.singular_values(process.times[-1:]).tolist() == [1.5] * 108
    assert process.frobenius(process.times[-1:]) == pytest.approx(1.5 * 108**0.5, rel=1e-14)


def test_a_polynomial_is_the_reversal_unless_told_otherwise():
    gains = Polynomial(SHAPE, 4).gain(uniform(4)).flatten()
    assert gains.tolist() == [1, 0.8125, 0.75, 0.8125, 1]


@pytest.mark.parametrize(
    ("special", "velocity", "acceleration"), [(ConstantVelocity, -1, 0), (ConstantDeceleration, -2, 2), (Identity, 0, 0)]
)
def test_named_maps_are_special_polynomials(special, velocity, acceleration):
    process, u0, s, t = special(SHAPE, 100), field(), uniform(3)[:3], uniform(3)[1:]
    other = Polynomial(SHAPE, 100, velocity=velocity, acceleration=acceleration)
    assert_close(other.gain(process.times), process.gain(process.times), atol=3e-16, rtol=0)
    assert_close(other.mean(u0, t), process.mean(u0, t), atol=3e-16, rtol=0)
    assert_close(other.step(u0, s, t, u0), process.step(u0, s, t, u0), atol=1e-15, rtol=0)
    assert_close(other.drift(u0, s), process.drift(u0, s), atol=1e-14, rtol=0)
    assert_close(other.diffusion(t[:2]), process.diffusion(t[:2]), atol=1e-15, rtol=0)


def test_a_polynomial_that_crosses_0_warns_of_negative_images():
    with pytest.warns(UserWarning, match="forward=polynomial passes through 0 and goes on to negative images"):
        Polynomial(SHAPE, 10, velocity=-1.02, acceleration=0).validate()


@pytest.mark.parametrize(("velocity", "acceleration"), [(-1, 0), (-2, 2), (-1, 0.02)])
def test_a_polynomial_that_stays_positive_and_fades_validates_without_a_warning(velocity, acceleration):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Polynomial(SHAPE, 10, velocity=velocity, acceleration=acceleration).validate()


def test_a_polynomial_has_no_step_where_it_returns():
    process, u0, s, t = Polynomial(SHAPE), field(1), column(0.6), column(0.7)
    with pytest.raises(ConfigError, match=r"forward=polynomial has no step from t=0\.6: the noise would have to shrink"):
        process.step(u0, s, t)


def test_kinematics_shifts_every_pixel_by_the_same_known_amount():
    process, u0 = Kinematics(SHAPE, 10, sigma=0.3, velocity=-2, acceleration=3), field()
    t = column(0, 0.5, 1)
    shift = column(0, -0.625, -0.5)
    assert_close(process.offset(t).flatten(), shift, atol=1e-15, rtol=0)
    assert_close(process.mean(u0, t), u0 + process.column(shift), atol=1e-15, rtol=0)
    assert_close(process.drift(u0, t), (-2 + 3 * process.column(t)).expand_as(u0), atol=1e-14, rtol=0)


def test_a_step_of_kinematics_carries_its_noise_along_and_adds_none():
    process, u = Kinematics(SHAPE, 10, sigma=0.3, velocity=-2, acceleration=3), field()
    s, t = column(0.2, 0.5, 0.8), column(0.4, 1, 0.8)
    shift = column(-0.4 + 2 * 0.09, 0.125, 0)
    assert_close(process.step(u, s, t, torch.ones_like(u)), u + process.column(shift), atol=1e-8, rtol=0)
    assert_close(process.increment(u, s, t), process.column(shift).expand_as(u), atol=1e-14, rtol=0)
    start = torch.zeros(3, dtype=torch.float64)
    moved = process.step(u, start, t, torch.ones_like(u)) - process.mean(u, t)
    assert_close(moved, torch.full_like(u, 0.3), atol=1e-14, rtol=0)


def test_kinematics_moves_at_constant_velocity_by_default():
    process = Kinematics(SHAPE, 4)
    assert process.offset(process.times).flatten().tolist() == [0, -0.25, -0.5, -0.75, -1]


@pytest.mark.parametrize("process", [Kinematics(SHAPE, 10), Polynomial(SHAPE, 10), Kinematics(SHAPE, 10, velocity=5)])
def test_maps_that_return_or_only_shift_warn_that_they_destroy_nothing(process):
    with pytest.warns(UserWarning, match=f"forward={process.name} keeps every coefficient.*copies of training images"):
        process.validate()


def test_a_wrong_option_is_refused_by_the_name_of_its_key():
    for kind, key, value in [
        (ConstantDeceleration, "literal", "yes"),
        (ConstantDeceleration, "literal", 1),
        (ConstantDeceleration, "literal", None),
        *[(kind, "velocity", value) for kind in (Polynomial, Kinematics) for value in ("fast", None, float("nan"), True)],
        *[(kind, "acceleration", value) for kind in (Polynomial, Kinematics) for value in ("2", float("inf"), [2])],
    ]:
        with pytest.raises(ConfigError, match=rf"^forward\.{key} must be"):
            kind(SHAPE, **{key: value})


def test_a_wrong_value_is_refused_by_the_name_of_its_key():
    wrong = [
        ("forward.num_levels", {"num_levels": "abc"}),
        ("forward.num_levels", {"num_levels": 0}),
        ("forward.sigma", {"sigma": -1}),
        ("forward.sigma", {"sigma": "small"}),
        ("data.shape", {"shape": 28}),
        ("data.shape", {"shape": []}),
    ]
    for kind in (ConstantVelocity, Identity, ConstantDeceleration, Polynomial, Kinematics):
        for key, values in wrong:
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
