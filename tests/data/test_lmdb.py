"""Images in an LMDB, as LSUN comes, read without unpacking it."""

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from heatgen.check import ConfigError
from heatgen.data.image_folder import ImageFolder

lmdb = pytest.importorskip("lmdb")


def pictures(count, seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (9, 12, 3), dtype=np.uint8) for _ in range(count)]


def write(folder: Path, images, kind="WEBP", more=()):
    """An LMDB of these images, whose keys are not in their order."""
    with lmdb.open(str(folder), map_size=2**24) as environment, environment.begin(write=True) as transaction:
        for i, image in enumerate(images):
            file = io.BytesIO()
            Image.fromarray(image).save(file, kind, lossless=True)
            transaction.put(f"{i:04d}-key".encode(), file.getvalue())
        for key, value in more:
            transaction.put(key, value)
    return folder


def data_of(path, **settings):
    return ImageFolder(path=str(path), **{"shape": [3, 9, 12], "batch_size": 4, "resize": "none"} | settings)


@pytest.mark.parametrize("settings", [{}, {"cache_limit": 0}, {"num_workers": 2}])
def test_the_lmdbs_of_a_set_are_its_splits_and_give_the_images_of_their_keys(tmp_path, settings):
    train, val = pictures(10), pictures(4, seed=1)
    write(tmp_path / "church_outdoor_train_lmdb", train, more=[(b"__len__", b"10")])
    write(tmp_path / "church_outdoor_val_lmdb", val, kind="PNG")
    data = data_of(tmp_path, **settings)
    found = {split: data.images(split).pixels(range(len(data.images(split)))) for split in ("train", "val", "test")}
    assert len(found["train"]) == 10 - len(found["test"])
    wanted = torch.from_numpy(np.stack(val)).permute(0, 3, 1, 2)
    assert torch.equal(found["val"], wanted)
    assert {image.numpy().tobytes() for split in ("train", "test") for image in found[split]} == {
        image.transpose(2, 0, 1).tobytes() for image in train
    }
    assert data.report()["left_out"][0]["count"] == 1
    assert data.images("train").fingerprint() != data.images("test").fingerprint()


def test_one_lmdb_is_held_out_of_as_a_folder_is(tmp_path):
    write(tmp_path / "train_lmdb", pictures(20))
    data = data_of(tmp_path / "train_lmdb", val_fraction=0.2, limit=10)
    assert [len(data.images(split)) for split in ("train", "val", "test")] == [10, 4, 1]


def test_a_broken_image_and_a_broken_lmdb_are_named_in_one_sentence(tmp_path):
    folder = write(tmp_path / "train_lmdb", pictures(6), more=[(b"0003-key", b"RIFF nothing")])
    with pytest.raises(ConfigError, match=rf"^{folder}:0003-key is not a complete image \(its format is not known\)"):
        data_of(folder).images("train")
    empty = write(tmp_path / "empty_lmdb", [])
    with pytest.raises(ConfigError, match="is an LMDB that holds no image"):
        data_of(empty).images("train")
    short = Path(shutil.copytree(folder, tmp_path / "short_lmdb"))
    content = (short / "data.mdb").read_bytes()
    (short / "data.mdb").write_bytes(content[: len(content) // 2])
    with pytest.raises(ConfigError, match=r"is cut short at \d+ of \d+ bytes; download or copy it again"):
        data_of(short).images("train")
    other = Path(shutil.copytree(folder, tmp_path / "other_lmdb"))
    (other / "data.mdb").write_bytes(b"no database" * 5000)
    with pytest.raises(ConfigError, match=r"is not a complete LMDB \(.*\); download or copy it again"):
        data_of(other).images("train")


def test_two_lmdbs_of_one_split_are_refused(tmp_path):
    for name in ("church_train_lmdb", "tower_train_lmdb"):
        write(tmp_path / name, pictures(2))
    with pytest.raises(ConfigError, match=r"are both LMDBs of the train split; give one of them as data\.path"):
        data_of(tmp_path).images("train")


def test_without_the_package_the_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    folder = write(tmp_path / "train_lmdb", pictures(2))
    monkeypatch.setitem(__import__("sys").modules, "lmdb", None)
    with pytest.raises(ConfigError, match="is an LMDB, which needs the package lmdb: pip install lmdb, or export it"):
        data_of(folder).images("train")
