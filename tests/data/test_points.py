"""Point data: laws in closed form, from seeds alone."""

import math

import pytest
import torch
from scipy import stats
from torch.testing import assert_close

from heatgen.check import ConfigError
from heatgen.data.checkerboard import Checkerboard
from heatgen.data.gaussian_mixture import GaussianMixture
from heatgen.data.ring import Ring
from heatgen.data.swiss_roll import SwissRoll

PLANE = {"shape": [1, 1, 2]}
MAKERS = [Ring, SwissRoll, Checkerboard, GaussianMixture]


def points(data, split="train"):
    images = data.images(split)
    return data.get(split, range(len(images))).double().flatten(1)


@pytest.mark.parametrize("maker", MAKERS)
def test_points_come_from_the_data_seed_and_the_split_alone(maker):
    sizes = {"train_size": 300, "val_size": 20, "test_size": 30}
    first, again = (maker(**PLANE, **sizes, seed=seed) for seed in (0, 7))
    assert torch.equal(points(first), points(again)) and points(first).shape == (300, 2)
    assert [len(first.images(split)) for split in ("val", "test")] == [20, 30]
    other = maker(**PLANE, **sizes, data_seed=1)
    assert not torch.equal(points(first), points(other))
    assert not torch.equal(points(first)[:20], points(first, "val"))
    assert first.images("train").fingerprint() == again.images("train").fingerprint()
    assert first.get("train", [3]).shape == (1, 1, 1, 2) and first.get("train", [3]).dtype == torch.float32
    assert first.spec.bits is None and first.spec.spectrum is None


def test_a_ring_has_its_radius_and_no_direction():
    x = points(Ring(**PLANE, radius=1.5, std=0.05))
    radius, angle = x.norm(dim=1), torch.atan2(x[:, 1], x[:, 0])
    assert stats.kstest((angle / math.pi).numpy(), "uniform", args=(-1, 2)).pvalue > 0.01
    assert stats.kstest(radius.numpy(), lambda r: stats.rice.cdf(r / 0.05, 1.5 / 0.05)).pvalue > 0.01  # |N(1.5, 0.05^2 I)|


def test_a_swiss_roll_lies_on_its_spiral():
    x = points(SwissRoll(**PLANE, radius=2.0, std=0.0))
    radius = x.norm(dim=1) * 4.5 * math.pi / 2
    assert_close(torch.stack([radius.cos(), radius.sin()], 1), x / x.norm(dim=1, keepdim=True), atol=1e-5, rtol=0)
    assert stats.kstest(radius.numpy(), "uniform", args=(1.5 * math.pi, 3 * math.pi)).pvalue > 0.01
    assert points(SwissRoll(**PLANE, std=0.05)).sub(x).std().item() == pytest.approx(0.05, rel=0.05)


def test_a_checkerboard_fills_every_second_square_evenly():
    x = points(Checkerboard(**PLANE, squares=4, radius=2.0))
    cell = (x + 2).floor().long()
    assert cell.min() == 0 and cell.max() == 3 and (cell.sum(1) % 2 == 0).all()
    counts = torch.bincount(cell[:, 0] * 4 + cell[:, 1], minlength=16)
    assert stats.chisquare(counts[counts > 0].numpy()).pvalue > 0.01 and (counts > 0).sum() == 8
    assert stats.kstest((x - x.floor()).flatten().numpy(), "uniform").pvalue > 0.01


def test_a_mixture_is_drawn_from_the_law_that_its_spec_names():
    data = GaussianMixture(shape=[1, 1, 2], means=[[-1, 0], [2, 1]], stds=[0.1, 0.4], weights=[1, 3], train_size=20_000)
    mixture, x = data.spec.mixture, points(data)
    assert mixture.weights.tolist() == [0.25, 0.75] and mixture.means.flatten(1).tolist() == [[-1, 0], [2, 1]]
    near = (x - torch.tensor([-1.0, 0])).norm(dim=1) < 1
    assert abs(near.double().mean().item() - 0.25) < 4 * (0.25 * 0.75 / 20_000) ** 0.5
    for own, mean, std in zip((near, ~near), mixture.means.flatten(1), mixture.stds, strict=True):
        assert stats.kstest(((x[own] - mean) / std).flatten().numpy(), "norm").pvalue > 0.01


@pytest.mark.parametrize(("count", "dimension"), [(1, 3), (2, 1), (4, 1), (8, 2), (3, 5)])
def test_components_stand_evenly(count, dimension):
    data = GaussianMixture(dimension=dimension, shape=[1, 1, dimension], components=count, radius=1.5)
    means = data.spec.mixture.means.flatten(1)
    assert means.shape == (count, dimension)
    assert_close(means.sum(0), torch.zeros(dimension).double(), atol=1e-12, rtol=0)
    if count > 1 and dimension > 1:
        assert_close(means.norm(dim=1), torch.full((count,), 1.5).double())
        gaps = (means - means.roll(1, 0)).norm(dim=1)
        assert_close(gaps, gaps[:1].expand(count), atol=1e-12, rtol=0)
    if dimension == 1 and count == 4:
        assert means.flatten().tolist() == [-1.5, -0.5, 0.5, 1.5]


def test_a_component_of_no_width_is_a_point():
    assert not points(GaussianMixture(dimension=1, shape=[1, 1, 1], components=1, stds=0)).any()
    two = points(GaussianMixture(dimension=1, shape=[1, 1, 1], components=2, radius=1, stds=0))
    assert set(two.flatten().tolist()) == {-1.0, 1.0}


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"means": [[1, 2, 3]]}, r"^data\.means must be a list of lists of data\.dimension = 2 numbers"),
        ({"means": []}, r"^data\.means must be a list"),
        ({"means": "here"}, r"^data\.means must be a list"),
        ({"means": [[0, "x"]]}, r"^data\.means must be"),
        ({"stds": [0.1, 0.2]}, r"^data\.stds must be 8 numbers, one for each component"),
        ({"stds": -0.1}, r"^data\.stds must be at least 0"),
        ({"weights": [1, 2]}, r"^data\.weights must be 8 numbers"),
        ({"weights": [0] * 8}, r"data\.weights greater than 0"),
        ({"components": 0}, r"^data\.components must be"),
        ({"dimension": 0}, r"^data\.dimension must be"),
        ({"dimension": 3}, r"^data\.shape = \[1, 1, 2\] must be \[1, 1, 3\]"),
        ({"extent": 0}, r"^data\.extent must be"),
        ({"train_size": 0}, r"^data\.train_size must be"),
    ],
)
def test_what_does_not_fit_is_refused_by_key(options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        GaussianMixture(**{**PLANE, **options})


@pytest.mark.parametrize(
    ("maker", "options", "key"),
    [(Ring, {"radius": 0}, "radius"), (SwissRoll, {"std": -1}, "std"), (Checkerboard, {"squares": 1}, "squares")],
)
def test_a_shape_without_extent_is_refused(maker, options, key):
    with pytest.raises(ConfigError, match=rf"^data\.{key} must be "):
        maker(**PLANE, **options)
