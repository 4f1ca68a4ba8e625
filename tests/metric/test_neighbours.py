"""Exact neighbours: sets with duplicates against whole numbers, and what rounding leaves open."""

import random

import pytest
import torch

from heatgen.metric import neighbours
from heatgen.metric.neighbours import covered, nearest_distances, smallest


def square(a, b):
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True))


def radii(points, k):
    """The squared distance of each point to its k-th nearest neighbour among the others, a whole number."""
    return [sorted(square(a, b) for j, b in enumerate(points) if j != i)[k - 1] for i, a in enumerate(points)]


@pytest.mark.parametrize("direct", [0.05, 0.0, 1.0])
def test_sets_with_duplicates_are_those_of_whole_numbers(monkeypatch, direct):
    """Whether few or all distances are measured, block by block: radii and balls as integers have them."""
    monkeypatch.setattr(neighbours, "DIRECT", direct)
    monkeypatch.setattr(neighbours, "BLOCK", 7)
    for seed in range(15):
        r = random.Random(seed)
        d, k, high = r.choice([1, 2, 5, 60]), r.randint(1, 4), r.choice([1, 3, 255])
        base = [[r.randint(0, high) for _ in range(d)] for _ in range(r.randint(1, 9))]
        x, y = ([r.choice(base) for _ in range(r.randint(5, 30))] for _ in range(2))
        expected = [any(square(a, b) <= radius for b, radius in zip(y, radii(y, k), strict=True)) for a in x]
        u, v = (torch.tensor(z, dtype=torch.float64) for z in (x, y))
        assert nearest_distances(v, k).square().tolist() == pytest.approx(radii(y, k), rel=1e-12)
        assert covered(u, v, nearest_distances(v, k)).tolist() == expected


def test_copies_lie_in_their_balls_wherever_features_are():
    """150 random sets as of a network, with copies: each sample is one of the reference."""
    for seed in range(150):
        g = torch.Generator().manual_seed(seed)
        base = torch.randn(20, 48, generator=g).double() * 3 + 100
        reference = base[torch.randint(20, (100,), generator=g)]
        samples = reference[torch.randint(100, (26,), generator=g)]
        assert covered(samples, reference, nearest_distances(reference, 3)).all()


def test_the_nearest_is_the_first_of_equal_ones_at_distance_0():
    x = torch.randn(30, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 1000
    values, places = smallest(x, x.repeat(3, 1), 1)
    assert (values == 0).all() and places[:, 0].tolist() == list(range(30))
