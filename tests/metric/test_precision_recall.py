"""Precision and recall: radii and balls against brute force, and what they say of sets that are known."""

import numpy as np
import pytest
import torch
from feature_toys import Values, ctx, flat, script
from torch import nn

from heatgen.check import ConfigError
from heatgen.metric import neighbours, precision_recall
from heatgen.metric.neighbours import covered, nearest_distances
from heatgen.metric.precision_recall import PrecisionRecall
from heatgen.metric.reduction import Rows


def normal(n, d=5, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measure(x, y, k=3):
    values = PrecisionRecall(k=k).measure(Rows.of(x), Rows.of(y), Values(), seed=0).values
    return values["precision"], values["recall"]


def distances(x, y):
    return np.linalg.norm(x.numpy()[:, None] - y.numpy()[None], axis=2)


@pytest.mark.parametrize("block", [2048, 4, 7])
def test_a_radius_reaches_to_the_kth_neighbour_that_is_not_the_feature_itself(monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    x = normal(30)
    for k in (1, 3, 6):
        assert nearest_distances(x, k).tolist() == pytest.approx(np.sort(distances(x, x), axis=1)[:, k], rel=1e-9)


@pytest.mark.parametrize("block", [2048, 4, 7])
def test_a_feature_is_covered_by_any_ball_it_is_in(monkeypatch, block):
    monkeypatch.setattr(neighbours, "BLOCK", block)
    x, centres, radii = normal(40), normal(25, seed=1), normal(25, 1, seed=2).abs().flatten() + 0.5
    expected = (distances(x, centres) <= radii.numpy()).any(1)
    assert 0.2 < expected.mean() < 0.8
    assert covered(x, centres, radii).tolist() == expected.tolist()


def test_balls_belong_to_the_reference_for_precision_and_to_the_samples_for_recall():
    """On a line: the reference at 0, 1, 2, 3 has balls of radius 1, the samples at 2, 2.1, 9, 9.5 of 0.1, 0.1, 0.5, 0.5."""
    reference, samples = (torch.tensor(v, dtype=torch.float64)[:, None] for v in ([0, 1, 2, 3], [2, 2.1, 9, 9.5]))
    assert measure(samples, reference, k=1) == (0.5, 0.25)


def test_more_neighbours_make_wider_balls():
    x, y = normal(40), normal(50, seed=1)
    several = [measure(x, y, k) for k in (1, 3, 9)]
    assert several[0][0] < several[1][0] < several[2][0] and several[0][1] < several[1][1] < several[2][1]


def test_sets_that_are_one_set_are_all_covered_whatever_their_order():
    x = normal(40)
    assert measure(x.flip(0), x) == (1, 1)
    assert measure(x[:4].repeat(10, 1), x[:4].repeat(9, 1)) == (1, 1)  # radii of 0


def test_sets_that_are_far_apart_cover_nothing_of_each_other():
    assert measure(normal(30), normal(40, seed=1) + 100) == (0, 0)


def test_samples_of_half_of_the_reference_are_precise_and_reach_half():
    left, right = normal(40), normal(40, seed=1) + 100
    assert measure(left[:30], torch.cat([left, right])) == (1, measure(left[:30], left)[1] / 2)


def test_recall_is_the_precision_of_the_sets_swapped():
    x, y = normal(30), 1.3 * normal(50, seed=1)
    assert measure(x, y) == measure(y, x)[::-1]
    assert measure(x, y)[0] != measure(x, y)[1]


def test_features_of_float32_are_measured_in_float64():
    """Far from the origin, where the product form of distances would lose them."""
    x, y = (1000 + 0.01 * normal(60, 64, seed=seed).float() for seed in (0, 1))
    assert measure(x, y) == measure(x.double(), y.double())
    assert 0 < measure(x, y)[0] < 1


def test_at_most_so_many_images_of_either_set_are_taken_by_chance(monkeypatch):
    seen = []

    def radii(features, k):
        seen.append(features[:, 0].tolist())
        return torch.ones(len(features))

    monkeypatch.setattr(precision_recall, "nearest_distances", radii)
    x, y = torch.arange(50)[:, None], 100 + torch.arange(12)[:, None]
    results = [PrecisionRecall(largest=20).measure(Rows.of(x), Rows.of(y), Values(), seed=seed) for seed in (0, 0, 1)]
    assert all(set(part) == set(range(100, 112)) for part in seen[::2])
    assert all(len(set(part)) == 20 and set(part) < set(range(50)) for part in seen[1::2])
    assert seen[1] == seen[3] != seen[5] and sorted(seen[1]) != list(range(20))
    assert results[0].facts["balls"] == 12


def test_images_are_measured_by_their_features_end_to_end(tmp_path):
    extractor = str(script(tmp_path / "mean.pt", nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    measured = ctx(tmp_path, train=flat([10, 20, 30, 40]), test=flat([30, 31, 90, 95]))
    result = PrecisionRecall(k=1, source="test", extractor=extractor)(measured)
    assert result.values == {"precision_own": 0.5, "recall_own": 0.25}  # not those of Inception
    assert result.headline == ("precision_own", "recall_own") and result.facts["k"] == 1
    assert result.facts["reference"] == "fake train, 4 images"


@pytest.mark.parametrize("sizes", [(3, 9), (9, 3)])
def test_no_more_images_than_neighbours_are_refused(sizes):
    with pytest.raises(ConfigError, match=r"more than 3 images.*raise n or metric\.largest"):
        measure(normal(sizes[0]), normal(sizes[1], seed=1))
    measure(normal(4), normal(4, seed=1))
    with pytest.raises(ConfigError, match=r"metric\.k must be a whole number of at least 1"):
        PrecisionRecall(k=0)


def test_one_sample_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="n must be"):
        PrecisionRecall(source="test")(ctx(tmp_path, n=1, train=flat([1, 2, 3]), test=flat([1, 2, 3])))
