"""Trajectories as neural processes see them: the right frames, the right noise, and the same again for the same sample."""

import pytest
import torch
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.forward.heat import Heat
from heatgen.forward.heat_kernel import HeatKernel
from heatgen.forward.random_matrix import RandomMatrix
from heatgen.forward.random_velocity import RandomVelocity
from heatgen.forward.stochastic_heat import StochasticHeat
from heatgen.model.tasks import clean_frames, entropy, make_task, observation_noise, privileged_features
from heatgen.noise import SampleNoise
from heatgen.regime.random import Random
from heatgen.regime.sensors import Sensors

SHAPE, K = (1, 6, 5), 9
REGIME = Random(context=[1, 4], targets=5)
MAPS = [Heat(SHAPE, K), RandomMatrix(SHAPE, K), RandomVelocity(SHAPE, K), HeatKernel(SHAPE, K), StochasticHeat(SHAPE, K)]


def fields(b=4):
    return torch.rand(b, *SHAPE, generator=torch.Generator().manual_seed(0))


def noise(samples=range(4)):
    return SampleNoise(samples, 3, "task")


@pytest.mark.parametrize("process", MAPS, ids=lambda p: p.name)
def test_a_task_depends_on_the_sample_alone(process):
    whole, part = (
        make_task(process, fields(), REGIME, noise(), 0.1),
        make_task(process, fields()[2:3], REGIME, noise([2]), 0.1),
    )
    for name in ("context", "target"):
        for what in ("times", "values", "mask"):
            a, b = (getattr(getattr(task, name), what) for task in (whole, part))
            assert_close(a[2:3], b, atol=1e-6, rtol=0)


@pytest.mark.parametrize("process", MAPS[:3], ids=lambda p: p.name)
def test_frames_are_the_map_of_the_field_seen_through_noise(process):
    """Also the first frame; and the deviation is the one asked for, whatever sigma of the map is."""
    b = 300
    u0 = fields(1).expand(b, *SHAPE)
    task = make_task(process, u0, REGIME, noise(range(b)), 0.3)
    own = process.bind(process_draw(process, b))
    for frames in (task.context, task.target):
        for j in range(frames.times.shape[1]):
            clean = own.mean(u0, frames.times[:, j])
            gap = (frames.values[:, j] - clean)[frames.mask[:, j]]
            assert gap.std().item() == pytest.approx(0.3, rel=0.05)
    first = task.target.times == 0
    assert first.any() and not torch.equal(task.target.values[first], task.target_clean[first])
    assert_close(task.target_clean[:, 0], own.mean(u0, task.target.times[:, 0]))
    assert not task.context.values[~task.context.mask].any()


def process_draw(process, b):
    """The random numbers of the map that a task of these samples draws: after the split, from the same noise."""
    own = noise(range(b))
    REGIME(process.num_levels + 1, own)
    return process.draw(own)


def test_a_map_driven_by_noise_gives_one_path():
    """Frames of Brownian motion: increments of disjoint times are independent, each of its own variance."""
    process, b = HeatKernel((1, 1, 1), 4), 4000
    numbers = torch.tensor([[1, 3, 4, 1]]).expand(b, -1)
    states = clean_frames(process, torch.zeros(b, 1, 1, 1), numbers, None, noise(range(b)))[:, :, 0, 0, 0].double()
    assert torch.equal(states[:, 0], states[:, 3])
    steps = torch.stack([states[:, 0], states[:, 1] - states[:, 0], states[:, 2] - states[:, 1]])
    variance = process.std(process.times[[1, 3, 4]]).flatten() ** 2
    expected = torch.stack([variance[0], variance[1] - variance[0], variance[2] - variance[1]])
    assert_close(steps.square().mean(1), expected.to(steps), rtol=0.1, atol=0)
    assert (torch.corrcoef(steps) - torch.eye(3)).abs().max() < 0.06


def test_the_noise_is_the_maps_own_unless_said():
    assert observation_noise(Heat(SHAPE, K, sigma=0.02), None) == 0.02
    assert observation_noise(Heat(SHAPE, K, sigma=0.02), 0.1) == 0.1
    assert observation_noise(HeatKernel(SHAPE, K), None) == 0.05  # its sigma is another thing
    with pytest.raises(ConfigError, match=r"^Neural processes need noise on their frames, and forward=heat has none"):
        observation_noise(Heat(SHAPE, K, sigma=0.0), None)
    with pytest.raises(ConfigError, match=r"^model\.noise_std must be a number greater than 0"):
        observation_noise(Heat(SHAPE, K), -1.0)


def test_facts_are_those_of_the_clean_frames():
    clean = torch.zeros(1, 2, *SHAPE)
    clean[0, 0] = 0.5
    clean[0, 1, 0, 2, 3] = 3.0
    assert_close(privileged_features(clean)[0], torch.tensor([[0.5, 0.5, 1.0], [3.0, 0.1, 0.0]]))
    assert privileged_features(clean[:, :0]).shape == (1, 0, 3)
    assert entropy(fields()).min() > 0 and entropy(fields()).max() < 1
    task = make_task(MAPS[0], fields(), REGIME, noise(), 0.1)
    assert_close(task.privileged[:, -5:], privileged_features(task.target_clean))


def test_sensors_see_as_many_pixels_of_each_context_frame():
    regime = Sensors(context=[1, 4], targets=5, sensors=7)
    task = make_task(MAPS[0], fields(), regime, noise(), 0.1)
    assert task.pixel_mask.shape == (4, 4, 1, 6, 5) and (task.pixel_mask.flatten(2).sum(2) == 7).all()
    assert (
        not torch.equal(task.pixel_mask[0, 0], task.pixel_mask[0, 1])
        and make_task(MAPS[0], fields(), REGIME, noise(), 0.1).pixel_mask is None
    )


def test_the_numbers_of_a_drawn_map_are_told_where_it_says_so():
    assert make_task(MAPS[2], fields(), REGIME, noise(), 0.1).cond.shape == (4, 2)
    assert make_task(RandomVelocity(SHAPE, K, conditional=False), fields(), REGIME, noise(), 0.1).cond is None
