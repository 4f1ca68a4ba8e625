"""The cache of features: files that are not whole are made again, and where none can be kept the number stands."""

import logging
from pathlib import Path

import numpy as np
import pytest
from feature_toys import ctx, flat, script
from torch import nn

from heatgen.metric import feature_cache
from heatgen.metric.fid import FID

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
    (path,) = (tmp_path / "statistics").glob("fake_train_*.np?")
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
