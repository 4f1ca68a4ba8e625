"""The data sets by name: digits, MNIST and its relatives, CIFAR-10."""

import gzip
import hashlib
import pickle
import struct
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
import torchvision
from sklearn.datasets import load_digits

from heatgen.check import ConfigError
from heatgen.data.cifar10 import CIFAR10
from heatgen.data.digits import Digits
from heatgen.data.fashion_mnist import FashionMNIST
from heatgen.data.mnist import MNIST
from heatgen.data.torchvision import read_idx

SYSTEM = Path(FashionMNIST.system_dir)


def all_pixels(data, split):
    images = data.images(split)
    return images.pixels(range(len(images)))


def bytes_of(n, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, *shape), dtype=np.uint8)


def idx(array):
    """The bytes of an IDX file: magic (0, 0, type 8, number of axes), big-endian sizes, data."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def put(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


def grey(kind, folder, **settings):
    data = kind(shape=[1, 28, 28], data_dir=str(folder), **{"val_size": 4} | settings)
    data.system_dir = str(folder / "system")
    return data


def sorted_rows(*parts):
    return sorted(row.tobytes() for part in parts for row in np.asarray(part))


def test_digits_are_all_of_scikit_learns_images_each_in_one_split():
    data = Digits(shape=[1, 8, 8])
    parts = [all_pixels(data, split) for split in ("train", "val", "test")]
    assert [len(part) for part in parts] == [1437, 180, 180]
    stored = torch.cat(parts)[:, 0].numpy().astype(float)
    assert len(np.unique(stored)) == 17
    recovered = np.rint(stored * 16 / 255)
    assert np.abs(stored - recovered * 255 / 16).max() <= 0.5
    assert sorted_rows(recovered) == sorted_rows(load_digits().images)


def test_digits_keep_their_labels_in_every_split():
    """The label of each image of scikit-learn's, found by the image; equal images have equal labels there."""
    digits = load_digits()
    label_of = {image.tobytes(): label for image, label in zip(digits.images, digits.target, strict=True)}
    data = Digits(shape=[1, 8, 8])
    for split in ("train", "val", "test"):
        recovered = np.rint(all_pixels(data, split)[:, 0].numpy() * (16 / 255))
        assert data.images(split).labels.tolist() == [label_of[image.tobytes()] for image in recovered]
        assert set(data.images(split).labels.tolist()) == set(range(10))


def test_digits_are_split_alike_for_every_seed():
    first, second = (Digits(shape=[1, 8, 8], seed=seed, val_size=5) for seed in (0, 1))
    assert all(torch.equal(all_pixels(first, split), all_pixels(second, split)) for split in ("train", "val", "test"))


@pytest.mark.parametrize("kind", [FashionMNIST, MNIST])
@pytest.mark.parametrize("suffix", ["", ".gz"])
@pytest.mark.parametrize("place", ["{name}/raw", "{name}", "system"])
def test_idx_files_are_read_from_every_usual_place_gzipped_or_plain(tmp_path, kind, suffix, place):
    folder = tmp_path / place.format(name=kind.torchvision_name)
    train, test = bytes_of(12, (28, 28)), bytes_of(3, (28, 28), seed=1)
    put(folder / f"train-images-idx3-ubyte{suffix}", idx(train))
    put(folder / f"t10k-images-idx3-ubyte{suffix}", idx(test))
    data = grey(kind, tmp_path)
    assert np.array_equal(all_pixels(data, "test")[:, 0], test)
    rest, held = all_pixels(data, "train"), all_pixels(data, "val")
    assert (len(rest), len(held)) == (8, 4)
    assert sorted_rows(rest, held) == sorted_rows(train)


def folder_of_numbers(tmp_path, suffix=".gz", labels=("train", "t10k")):
    """MNIST of 12 and 3 images of one byte each, i in the train part and 100 + i in the test part; labels are byte % 10."""
    folder = tmp_path / "MNIST" / "raw"
    for name, numbers in (("train", np.arange(12)), ("t10k", 100 + np.arange(3))):
        images = np.broadcast_to(numbers[:, None, None], (len(numbers), 28, 28)).astype(np.uint8)
        put(folder / f"{name}-images-idx3-ubyte{suffix}", idx(images))
        if name in labels:
            put(folder / f"{name}-labels-idx1-ubyte{suffix}", idx((numbers % 10).astype(np.uint8)))
    return grey(MNIST, tmp_path)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_idx_labels_stay_with_their_images_where_some_are_held_out(tmp_path, suffix):
    data = folder_of_numbers(tmp_path, suffix)
    for split, size in (("train", 8), ("val", 4), ("test", 3)):
        labels, numbers = data.images(split).labels, all_pixels(data, split)[:, 0, 0, 0]
        assert len(labels) == size and labels.dtype == torch.int64
        assert torch.equal(labels, numbers.long() % 10)


def test_idx_images_without_a_file_of_labels_have_none(tmp_path):
    data = folder_of_numbers(tmp_path, labels=("train",))
    assert data.images("test").labels is None
    assert data.images("train").labels is not None
    assert folder_of_numbers(tmp_path / "other", labels=()).images("val").labels is None


def test_a_damaged_file_of_labels_is_named_in_one_sentence(tmp_path):
    data = folder_of_numbers(tmp_path, suffix="")
    path = tmp_path / "MNIST" / "raw" / "train-labels-idx1-ubyte"
    damage(path, 0.8)
    with pytest.raises(ConfigError, match="train-labels-idx1-ubyte is not a complete IDX file"):
        data.images("train")


def test_an_idx_file_is_big_endian_and_row_by_row(tmp_path):
    content = bytes([0, 0, 8, 3, 0, 0, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3, 1, 2, 3, 4, 5, 6])
    put(tmp_path / "file", content)
    assert read_idx(tmp_path / "file").tolist() == [[[1, 2, 3], [4, 5, 6]]]


def damage(path, how):
    content = path.read_bytes()
    if how == "empty":
        path.write_bytes(b"")
    elif how == "garbled":
        path.write_bytes(content[:100] + bytes(255 - byte for byte in content[100:400]) + content[400:])
    else:
        path.write_bytes(content[: int(how * len(content))])


@pytest.mark.parametrize(
    ("name", "how"),
    [
        ("t10k-images-idx3-ubyte", 0.9),
        ("t10k-images-idx3-ubyte", 0.001),
        ("t10k-images-idx3-ubyte", "empty"),
        ("t10k-images-idx3-ubyte.gz", 0.9),
        ("t10k-images-idx3-ubyte.gz", "empty"),
        ("t10k-images-idx3-ubyte.gz", "garbled"),
    ],
)
def test_a_damaged_idx_file_is_named_in_one_sentence(tmp_path, name, how):
    path = tmp_path / "MNIST" / "raw" / name
    put(path, idx(bytes_of(12, (28, 28)) // 50))
    damage(path, how)
    with pytest.raises(ConfigError, match="is not a complete IDX file") as caught:
        grey(MNIST, tmp_path).images("test")
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


@pytest.mark.parametrize("error", [RuntimeError("Error downloading"), URLError("Temporary failure in name resolution")])
def test_missing_files_without_a_network_say_in_one_sentence_where_to_put_them(tmp_path, monkeypatch, error):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(torchvision.datasets, "FashionMNIST", fail)
    monkeypatch.setattr(torchvision.datasets, "CIFAR10", fail)
    with pytest.raises(ConfigError) as caught:
        grey(FashionMNIST, tmp_path).images("train")
    assert str(caught.value) == (
        f"FashionMNIST is not under {tmp_path} and cannot be downloaded ({error}); "
        "put FashionMNIST/raw/train-images-idx3-ubyte.gz there."
    )
    with pytest.raises(ConfigError, match=r"^CIFAR10 is not under .*; put cifar-10-python.tar.gz .* there\.$"):
        CIFAR10(shape=[3, 32, 32], data_dir=str(tmp_path)).images("train")


@pytest.mark.skipif(not SYSTEM.is_dir(), reason="the system has no package of Fashion-MNIST")
def test_fashion_mnist_of_the_system_is_the_published_one(tmp_path):
    data = FashionMNIST(shape=[1, 28, 28], data_dir=str(tmp_path))
    train, test = data.read_part(True), data.read_part(False)
    assert (len(train), len(test)) == (60000, 10000)
    assert train.sum(dtype=torch.int64).item() == 3431114169  # a mean of 72.94
    assert test.sum(dtype=torch.int64).item() == 573469082
    for labels, count in ((data.read_labels(True), 6000), (data.read_labels(False), 1000)):
        assert labels is None or labels.bincount().tolist() == [count] * 10


def test_cifar_10_keeps_its_channels_rows_and_columns_apart(tmp_path, monkeypatch):
    train, test = bytes_of(10, (3072,)), bytes_of(3, (3072,), seed=1)
    folder = tmp_path / "cifar-10-batches-py"

    def put_batch(name, array, **content):
        put(folder / name, pickle.dumps({"data": array, "labels": (array[:, 0] % 10).tolist(), **content}))
        return name, hashlib.md5((folder / name).read_bytes()).hexdigest()

    files = [put_batch("data_batch_1", train[:6]), put_batch("data_batch_2", train[6:])]
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "train_list", [list(file) for file in files])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "test_list", [list(put_batch("test_batch", test))])
    name, md5 = put_batch("batches.meta", test[:0], label_names=["cat"])
    monkeypatch.setattr(torchvision.datasets.CIFAR10, "meta", {"filename": name, "key": "label_names", "md5": md5})

    data = CIFAR10(shape=[3, 32, 32], data_dir=str(tmp_path), val_size=4)
    stored = all_pixels(data, "test")
    assert stored[2, 1, 5, 7] == test[2, 1024 + 5 * 32 + 7]
    assert np.array_equal(stored.flatten(1), test)
    assert sorted_rows(all_pixels(data, "train"), all_pixels(data, "val")) == sorted_rows(train)
    for split, size in (("train", 6), ("val", 4), ("test", 3)):
        labels = data.images(split).labels
        assert len(labels) == size and torch.equal(labels, all_pixels(data, split)[:, 0, 0, 0].long() % 10)
