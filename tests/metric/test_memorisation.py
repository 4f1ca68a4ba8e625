"""Memorisation: nearest training images against brute force, copies, new images and the picture."""

import numpy as np
import pytest
import torch
from feature_toys import ctx, faithful

from heatgen.check import ConfigError
from heatgen.metric import tiles
from heatgen.metric.memorisation import Memorisation, nearest
from heatgen.picture import cloud, grid, side_by_side

SHAPE = (2, 3, 4)
RATIO, NEARER, OWN = "nearest_over_held_out", "closer_than_held_out", "nearest_is_own"


def images(n, seed):
    return torch.randint(0, 256, (n, *SHAPE), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


TRAIN, TEST, VAL = images(40, 0), images(30, 1), images(20, 2)


def measured(tmp_path, way_back=None, n=40, **splits):
    model = faithful(way_back) if way_back else None
    return ctx(tmp_path, n=n, model=model, **{"train": TRAIN, "test": TEST, "val": VAL} | splits)


def distances(x, y):
    """Root mean square distances per pixel of bytes, in [0, 1], (len(x), len(y))."""
    difference = x.flatten(1).numpy().astype(float)[:, None] - y.flatten(1).numpy().astype(float)
    return np.sqrt((difference**2).mean(2)) / 255


@pytest.mark.parametrize("block", [1, 7, 39, 40, 4096])
def test_the_nearest_of_all_training_images_is_found_in_blocks(tmp_path, monkeypatch, block):
    monkeypatch.setattr(tiles, "MOST", block)
    distance, index = nearest(TEST.float() / 255, measured(tmp_path))
    expected = distances(TEST, TRAIN)
    assert distance.dtype == torch.float64
    assert distance.tolist() == pytest.approx(expected.min(1), rel=1e-6)
    assert index.tolist() == expected.argmin(1).tolist() and len(set(index.tolist())) > 5


@pytest.mark.parametrize("batch_size", [4, 7, 100])
def test_a_model_that_gives_its_own_training_images_copies(tmp_path, batch_size):
    wanted = measured(tmp_path, lambda u: u)
    wanted.batch_size = batch_size
    result = Memorisation()(wanted)
    assert result.values[RATIO] == pytest.approx(0, abs=1e-6)
    assert result.values[NEARER] == result.values[OWN] == 1
    assert result.errors[NEARER] == result.errors[OWN] == 0
    assert result.values["own_median"] == 0 and result.values["nearest_median"] == pytest.approx(0, abs=1e-6)
    assert "the model copies" in result.notes[-1]


def test_a_model_that_gives_other_training_images_copies_but_not_its_own(tmp_path):
    result = Memorisation()(measured(tmp_path, lambda u: u.roll(1, 0)))  # within batches of 4
    assert result.values[RATIO] == pytest.approx(0, abs=1e-6) and result.values[NEARER] == 1
    assert result.values[OWN] == 0 and result.values["own_median"] > 0.2


def test_a_model_that_gives_new_images_is_about_as_far_as_held_out_ones(tmp_path):
    new = iter(images(400, 5).float().div(255).split(4))
    result = Memorisation()(measured(tmp_path, lambda u: next(new), n=400, test=images(400, 6)))
    assert result.values[RATIO] == pytest.approx(1, abs=0.05)
    assert result.values[NEARER] == pytest.approx(0.01, abs=0.025)
    assert result.values[OWN] == pytest.approx(1 / 40, abs=0.03)
    assert result.notes == []


def test_every_number_is_the_one_of_brute_force(tmp_path):
    """Samples between their own training image and another one, and every fourth its negative."""

    def way_back(u):
        share = torch.tensor([0.9, 0.6, 0.3, -1.0])[: len(u)].reshape(-1, 1, 1, 1).to(u)
        return torch.where(share < 0, 1 - u, share * u + (1 - share) * u.roll(1, 0))

    wanted = measured(tmp_path, way_back, n=21)
    result = Memorisation(split="val")(wanted)
    start = wanted.data.prior_order(range(21), 0)
    own = TRAIN[start].double() / 255
    samples = torch.cat([way_back(part) for part in own.split(4)])
    far = distances(samples * 255, TRAIN)
    held = distances(VAL, TRAIN).min(1)
    close, bound = far.min(1), np.quantile(held, 0.01)

    def median(values):
        return np.sort(values)[(len(values) - 1) // 2]

    same, copies = far.argmin(1) == np.array(start), close < bound
    assert 0 < same.mean() < 1 and 0 < copies.mean() < 1
    expected = {
        RATIO: median(close) / median(held),
        NEARER: copies.mean(),
        OWN: same.mean(),
        "own_median": median(far[range(21), start]),
        "nearest_median": median(close),
        "held_out_median": median(held),
    }
    assert result.values == pytest.approx(expected, rel=1e-5)
    shares = {NEARER: copies, OWN: same}
    errors = {name: share.std(ddof=1) / 21**0.5 for name, share in shares.items()}
    assert result.errors == pytest.approx(errors, rel=1e-9)
    assert result.headline == (RATIO,)
    assert result.facts == {"n": 21, "held out": "20 of fake val", "delta": "0.25"}


def test_samples_are_measured_within_the_range_of_images(tmp_path):
    black_and_white = 255 * (TRAIN > 127).to(torch.uint8)
    over = Memorisation()(measured(tmp_path, lambda u: 3 * u - 1, train=black_and_white))
    assert over.values["own_median"] == 0 and over.values["nearest_median"] == pytest.approx(0, abs=1e-6)


def test_the_distance_of_a_near_copy_is_exact(tmp_path):
    distance, index = nearest(TRAIN.double() / 255 + 1e-5, measured(tmp_path))
    single = nearest(TRAIN.float() / 255 + 1e-4, measured(tmp_path))[0]
    assert distance.tolist() == pytest.approx([1e-5] * 40, rel=0.01) and index.tolist() == list(range(40))
    assert single.tolist() == pytest.approx([1e-4] * 40, rel=0.01)


def test_more_samples_than_held_out_images_are_compared_with_all_of_them(tmp_path):
    many = Memorisation()(measured(tmp_path, lambda u: u, n=90))
    few = Memorisation()(measured(tmp_path, lambda u: u, n=5))
    assert many.facts["held out"] == "30 of fake test" and few.facts["held out"] == "5 of fake test"
    assert many.values[OWN] == 1  # samples 40 .. 79 start from the training images again
    held = np.sort(distances(TEST, TRAIN).min(1))
    assert many.values["held_out_median"] == pytest.approx(held[14], rel=1e-6)


def test_the_picture_shows_samples_their_starts_and_their_nearest(tmp_path):
    wanted = measured(tmp_path, lambda u: u.roll(1, 0), n=15)
    picture = Memorisation()(wanted).pictures["nearest"]
    start = TRAIN[wanted.data.prior_order(range(12), 0)]
    samples = torch.cat([part.roll(1, 0) for part in start.split(4)])
    expected = grid(torch.cat([samples, start, samples]).float() / 255, columns=12)
    assert picture.size == expected.size and picture.tobytes() == expected.tobytes()


def test_a_picture_of_few_samples_is_as_wide_as_they_are(tmp_path):
    wide, narrow = (Memorisation()(measured(tmp_path, lambda u: u, n=n)).pictures["nearest"] for n in (12, 3))
    assert narrow.height == wide.height and narrow.width - 2 == (wide.width - 2) / 4


def test_the_picture_of_points_is_three_clouds_of_all_of_them(tmp_path):
    train = torch.randint(0, 256, (40, 1, 1, 2), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    wanted = measured(tmp_path, lambda u: u.roll(1, 0), n=30, train=train, test=train, val=train)
    picture = Memorisation()(wanted).pictures["nearest"]
    start = train[wanted.data.prior_order(range(30), 0)]
    samples = torch.cat([part.roll(1, 0) for part in start.split(4)])
    expected = side_by_side([cloud(u.float() / 255) for u in (samples, start, samples)])
    assert picture.size == expected.size and picture.tobytes() == expected.tobytes()


def test_it_is_refused_without_a_run_and_for_one_sample(tmp_path):
    with pytest.raises(ConfigError, match="run=DIR"):
        Memorisation()(measured(tmp_path))
    with pytest.raises(ConfigError, match="n must be"):
        Memorisation()(measured(tmp_path, lambda u: u, n=1))
    with pytest.raises(ConfigError, match=r"metric\.split must be one of val, test, not 'train'"):
        Memorisation(split="train")
