"""forward=random_velocity: what is drawn, for whom, what the map then does and what the network is given."""

import pytest
import torch
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.noise import SampleNoise

SHAPE = (2, 6, 9)
POLICIES = ["sample", "batch", "step"]


def make(**options):
    return RandomVelocity(SHAPE, **{"num_levels": 7, "slowest": 0.5, "fastest": 3.0, **options})


def noise(samples, seed=0):
    return SampleNoise(samples, seed, "map")


def field(batch=3):
    return torch.rand(batch, *SHAPE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)


@pytest.mark.parametrize(("per", "shape"), [("sample", (5, 1)), ("batch", (5, 1)), ("step", (5, 8))])
def test_a_velocity_is_drawn_for_each_sample_or_level(per, shape):
    drawn = make(per=per).draw(noise(range(5)))
    assert drawn.shape == shape
    assert drawn.min() >= 0.5
    assert drawn.max() <= 3.0
    assert drawn.unique().numel() == {"sample": 5, "batch": 1, "step": 40}[per]


@pytest.mark.parametrize("per", ["sample", "step"])
def test_the_velocity_of_a_sample_does_not_depend_on_its_batch(per):
    process = make(per=per)
    together = process.draw(noise([3, 8, 5]))
    alone = torch.cat([process.draw(noise([sample])) for sample in (3, 8, 5)])
    assert torch.equal(together, alone)
    assert not torch.equal(together, process.draw(noise([3, 8, 5], seed=1)))


def test_a_batch_goes_at_the_velocity_of_its_first_sample():
    drawn = make(per="batch").draw(noise([3, 8, 5]))
    assert torch.equal(drawn, make(per="sample").draw(noise([3])).expand(3, 1))


@pytest.mark.parametrize("per", ["sample", "step"])
def test_velocities_are_uniform_between_the_slowest_and_the_fastest(per):
    drawn = make(per=per).draw(noise(range(1000))).flatten().sort().values
    n = len(drawn)
    expected = 0.5 + 2.5 * (torch.arange(n, dtype=torch.float64) + 0.5) / n
    assert (drawn - expected).abs().max() / 2.5 < 1.95 / n**0.5  # Kolmogorov and Smirnov at one in a thousand


def test_velocities_of_a_sample_at_different_levels_have_nothing_in_common():
    drawn = make(per="step").draw(noise(range(1000)))
    assert (torch.corrcoef(drawn.mT) - torch.eye(8)).abs().max() < 4.5 / 1000**0.5


def test_there_is_one_velocity_where_the_slowest_is_the_fastest():
    process = make(slowest=1.5, fastest=1.5)
    assert torch.equal(process.draw(noise(range(3))), torch.full((3, 1), 1.5).double())


@pytest.mark.parametrize("per", POLICIES)
def test_before_a_draw_it_is_the_map_of_the_mean_velocity(per):
    process, u0, t = make(per=per), field(), column(0, 0.4, 1)
    assert_close(process.gain(t).flatten(), column(1, 0.3, 0), atol=1e-15, rtol=0)
    assert_close(process.mean(u0, t), torch.stack([u0[0], 0.3 * u0[1], 0 * u0[2]]), atol=1e-15, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_each_sample_fades_at_its_own_speed_and_stops_at_0(dtype):
    process = make().bind(column(0.5, 1.0, 3.0)[:, None].to(dtype))
    u0 = field()
    assert_close(process.gain(column(0.4, 0.4, 0.4)).flatten(), column(0.8, 0.6, 0), atol=1e-15, rtol=0)
    assert_close(process.gain(column(0, 1, 0.25)).flatten(), column(1, 0, 0.25), atol=1e-15, rtol=0)
    expected = torch.stack([0.8 * u0[0], 0.6 * u0[1], 0 * u0[2]])
    assert_close(process.mean(u0, column(0.4, 0.4, 0.4)), expected, atol=1e-15, rtol=0)


def test_with_a_velocity_for_every_level_each_level_uses_its_own():
    process = make(per="step")
    drawn = process.draw(noise(range(3)))
    bound = process.bind(drawn)
    for k, t in enumerate(process.times):
        expected = (1 - drawn[:, k] * k / 7).clamp(min=0)
        assert_close(bound.gain(t.expand(3)).flatten(), expected, atol=1e-14, rtol=0)
    mixed = process.times[[1, 0, 2]]
    expected = column(1 - drawn[0, 1].item() / 7, 1, max(0, 1 - drawn[2, 2].item() * 2 / 7))
    assert_close(bound.gain(mixed).flatten(), expected, atol=1e-14, rtol=0)


@pytest.mark.parametrize("per", POLICIES)
def test_a_given_draw_leaves_the_map_as_it_was(per):
    process, u0, t = make(per=per), field(), column(0.1, 0.2, 0.3)
    before, saved = process.mean(u0, t), process.state_dict()
    first, second = (process.bind(process.draw(noise(range(3), seed))) for seed in range(2))
    states = [first.mean(u0, t), second.mean(u0, t)]
    assert not torch.equal(*states)
    assert torch.equal(first.mean(u0, t), states[0])
    assert torch.equal(process.mean(u0, t), before)
    assert process.velocity.tolist() == [[1.75]]
    assert process.state_dict().keys() == saved.keys() == first.state_dict().keys()


@pytest.mark.parametrize("per", POLICIES)
def test_a_drawn_map_changes_no_image_and_is_the_image_at_level_0(per):
    process, u0 = make(per=per), field()
    before = u0.clone()
    bound = process.bind(process.draw(noise(range(3))))
    assert_close(bound.mean(u0, column(0, 0, 0)), u0, atol=0, rtol=0)
    states = [bound.mean(u0, process.times[k].expand(3)) for k in (1, 2)]
    assert torch.equal(u0, before)
    assert len({x.untyped_storage().data_ptr() for x in (u0, *states)}) == 3


def test_a_drawn_map_has_the_drift_of_its_velocity():
    process, u0 = make().bind(column(0.5, 1.0, 2.0)[:, None]), field()
    t = column(0.3, 0.3, 0.3)
    expected = -process.column(column(0.5, 1.0, 2.0)) * u0
    assert_close(process.drift(process.mean(u0, t), t), expected, atol=1e-13, rtol=0)
    assert_close(process.step(process.mean(u0, t), t, t + 0.1, 0 * u0), process.mean(u0, t + 0.1), atol=1e-14, rtol=0)


@pytest.mark.parametrize("per", POLICIES)
def test_the_network_is_told_the_gain_at_both_ends_of_its_step(per):
    process = make(per=per)
    drawn = process.draw(noise(range(3)))
    t, s = process.times[[3, 2, 1]], process.times[[2, 1, 0]]
    cond = process.bind(drawn).cond(t, s)
    numbers = [[0, 0, 0], [0, 0, 0]] if per != "step" else [[3, 2, 1], [2, 1, 0]]
    ends = [(1 - drawn[range(3), number] * time).clamp(min=0) for number, time in zip(numbers, (t, s), strict=True)]
    assert_close(cond, torch.stack(ends, dim=1), atol=1e-14, rtol=0)


@pytest.mark.parametrize("per", POLICIES)
def test_one_time_is_told_to_every_sample_of_the_draw(per):
    process = make(per=per)
    bound, t, s = process.bind(process.draw(noise(range(3)))), process.times[3:4], process.times[2:3]
    assert torch.equal(bound.cond(t, s), bound.cond(t.repeat(3), s.repeat(3)))


def test_a_map_that_is_not_conditional_is_hidden_from_the_network():
    process = make(conditional=False)
    bound = process.bind(process.draw(noise(range(3))))
    assert process.withholds_cond
    assert bound.withholds_cond
    assert bound.cond(process.times[[3, 2, 1]], process.times[[2, 1, 0]]) is None
    assert not make().withholds_cond
    assert not make().bind(column(1, 2, 3)[:, None]).withholds_cond


def test_a_wrong_value_is_refused_by_the_name_of_its_key():
    for key, values in [
        ("slowest", {"slowest": -1}),
        ("slowest", {"slowest": "slow"}),
        ("fastest", {"fastest": None}),
        ("fastest", {"slowest": 2, "fastest": 1}),
        ("per", {"per": "pixel"}),
        ("per", {"per": None}),
        ("conditional", {"conditional": "no"}),
        ("conditional", {"conditional": 1}),
        ("num_levels", {"num_levels": 0}),
        ("sigma", {"sigma": -1}),
    ]:
        with pytest.raises(ConfigError, match=rf"^forward\.{key} must be"):
            make(**values)
