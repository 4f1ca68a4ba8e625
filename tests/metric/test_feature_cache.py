"""The cache of features: files that are not whole are made again, and where none can be kept the number stands."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from feature_toys import Values, ctx, faithful, flat, script
from torch import nn

from heatgen.metric import feature_cache, row_file
from heatgen.metric.features import FeatureMetric
from heatgen.metric.fid import FID
from heatgen.metric.kid import KID
from heatgen.metric.precision_recall import PrecisionRecall
from heatgen.metric.row_file import RowFile
from heatgen.metric.suite import Suite
from heatgen.runtime.partial import Partial

TRAIN, TEST = flat([0, 30, 90, 120, 200, 255, 17]), flat([10, 20, 60, 250])


def measure(tmp_path):
    weights = tmp_path / "stand-in.pt"
    if not weights.is_file():
        script(weights, nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return FID(source="test", weights=str(weights))(ctx(tmp_path, train=TRAIN, test=TEST))


def other(path, array):
    with path.open("wb") as file:
        np.save(file, array, allow_pickle=True)


def zipped(path):
    with path.open("wb") as file:
        np.savez(file, a=np.zeros((7, 12), np.float32))


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(path.read_bytes()[:-40]),
        lambda path: path.write_bytes(path.read_bytes()[:60]),
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("no array"),
        zipped,
        lambda path: other(path, np.zeros((7, 12))),
        lambda path: other(path, np.zeros((7, 11), np.float32)),
        lambda path: other(path, np.zeros((6, 12), np.float32)),
        lambda path: other(path, np.zeros(7, np.float32)),
        lambda path: other(path, np.zeros((), np.float32)),
        lambda path: other(path, np.ones((7, 12), np.float32)),
        lambda path: other(path, np.full((7, 12), np.nan, np.float32)),
        lambda path: other(path, np.array([[{}] * 12] * 7, dtype=object)),
    ],
)
def test_a_file_that_is_not_whole_is_made_again(tmp_path, caplog, damage):
    first = measure(tmp_path)
    (path,) = (tmp_path / "statistics").glob("fake_train_*.npz")
    path.with_suffix(".npy").unlink()
    whole = path.read_bytes()
    damage(path)
    with caplog.at_level(logging.INFO, "heatgen"):
        again = measure(tmp_path)
    assert again.values == first.values and again.notes == first.notes and path.read_bytes() == whole
    assert "made again" in caplog.text and str(path) in caplog.text


def test_a_folder_that_cannot_be_written_costs_the_file_and_not_the_number(tmp_path, monkeypatch):
    def full(path):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(feature_cache, "atomic_path", full)
    result = measure(tmp_path)
    monkeypatch.undo()
    assert result.values == measure(tmp_path).values
    (note,) = (note for note in result.notes if "cannot be kept" in note)
    assert "statistics (Read-only file system), and are made anew each time" in note


def test_a_file_in_the_place_of_the_folder_costs_no_number_either(tmp_path):
    Path(tmp_path / "statistics").touch()
    result = measure(tmp_path)
    assert result.values["fid"] > 0 and any("cannot be kept" in note for note in result.notes)


@pytest.mark.parametrize("metric", [lambda: KID(subsets=3, subset_size=3), lambda: PrecisionRecall(k=1), Suite])
def test_features_that_another_metric_has_made_are_not_made_again(tmp_path, monkeypatch, metric):
    seen: list[int] = []

    class Counted(Values):
        def __call__(self, images):
            seen.append(len(images))
            return super().__call__(images)

    extractor, drawn = Counted(), []
    monkeypatch.setattr(FeatureMetric, "make_extractor", lambda self, ctx: extractor)

    def wanted(folder, n=9):
        output = ctx(folder, n, faithful(lambda u: drawn.append(len(u)) or u**2), train=TRAIN, test=TEST)
        output.partial = Partial(folder / "run" / "partial", f"{metric}{n}", samples="same")
        return output

    alone = metric()(wanted(tmp_path / "alone")).values
    FID()(wanted(tmp_path))
    seen.clear(), drawn.clear()
    assert metric()(wanted(tmp_path)).values == alone and seen == [1]  # the one to compare the file with
    FID()(wanted(tmp_path, 6))  # fewer are the first of them
    assert drawn == [1, 1]  # whose calls are counted
    drawn.clear()
    (kept,) = (tmp_path / "run").rglob("*.npy")
    kept.write_bytes(kept.read_bytes()[:-9])
    assert metric()(wanted(tmp_path)).values == alone and sum(drawn) == 9
    assert not list(tmp_path.rglob("*.part"))


def test_no_rows_are_kept_where_they_would_be_too_many_or_one_is_missing(tmp_path, monkeypatch):
    rows = torch.arange(1.0, 13).reshape(4, 3)
    file = RowFile(tmp_path / "a.npy", 4, world=2)
    file.write(rows[::2], [0, 2])
    file.write(rows[3:], [3])
    file.close()
    file.finish(3)  # the row at 1 was written elsewhere
    assert not list(tmp_path.iterdir())
    file = RowFile(tmp_path / "a.npy", 4)
    file.write(rows[:2], range(2))
    file.close()
    RowFile(tmp_path / "a.npy", 4).write(rows[2:], range(2, 4))  # as behind a kill
    file.finish(3)
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows.numpy())
    monkeypatch.setattr(row_file, "LARGEST", 47)
    file = RowFile(tmp_path / "b.npy", 4)
    file.write(rows, range(4))
    assert file.lost and not (tmp_path / "b.npy.part").exists()


def test_two_commands_that_make_the_same_rows_at_once_both_end_and_leave_them_whole(tmp_path):
    rows = torch.arange(1.0, 13).reshape(4, 3)
    one, other = (RowFile(tmp_path / "a.npy", 4) for _ in range(2))
    for file in (one, other):
        file.write(rows[:2], range(2))
    one.write(rows[2:], range(2, 4))
    one.close()
    one.finish(3)
    other.write(rows[2:], range(2, 4))
    other.close()
    other.finish(3)
    assert [path.name for path in tmp_path.iterdir()] == ["a.npy"]
    assert np.array_equal(np.load(tmp_path / "a.npy"), rows.numpy())
