"""heatgen pack and data=packed: the same images, splits and bits as what was packed, and a sentence for any other file."""

import json
import os
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pytest
import torch
from conftest import SMALL, call
from PIL import Image

from heatgen.app import cli
from heatgen.app.compose import compose
from heatgen.check import ConfigError
from heatgen.data import blocks, packed_file
from heatgen.data.image_folder import ImageFolder
from heatgen.data.packed import PackedData

SHAPE = [3, 6, 8]


def folder_of(path: Path, count: int = 24) -> Path:
    rng = np.random.default_rng(0)
    path.mkdir(parents=True)
    for i in range(count):
        Image.fromarray(rng.integers(0, 256, (9 + i % 3, 14, 3), dtype=np.uint8)).save(path / f"{i:02d}.png")
    return path


def pack(*words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    """`heatgen pack ...` in this process; its exit code."""
    monkeypatch.setattr(sys, "argv", ["heatgen", "pack", *words])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A folder, and the file that it is packed into, of blocks of 4 images."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(blocks, "ROWS", 4)
        place = tmp_path_factory.mktemp("packed")
        source, out = folder_of(place / "pictures"), place / "new" / "packed.h5"
        words = ["data=image_folder", f"data.path={source}", f"data.shape={SHAPE}", "data.val_fraction=0.2"]
        assert pack(*words, f"out={out}", monkeypatch=monkeypatch) == 0
    assert [path.name for path in out.parent.iterdir()] == ["packed.h5"]
    return source, out


@pytest.fixture
def pair(made: tuple[Path, Path], tmp_path: Path) -> tuple[Path, Path]:
    """The folder, and a copy of the file that a test may change."""
    return made[0], Path(shutil.copy(made[1], tmp_path / "packed.h5"))


def packed(path: Path, **settings) -> PackedData:
    return PackedData(path=str(path), **{"shape": SHAPE, "batch_size": 4} | settings)


def folder(path: Path, **settings) -> ImageFolder:
    return ImageFolder(path=str(path), **{"shape": SHAPE, "batch_size": 4, "val_fraction": 0.2} | settings)


def batches(data, split: str = "train"):
    data.trainer = SimpleNamespace(global_step=0, max_steps=9, global_rank=0, world_size=1, accumulate_grad_batches=1)
    loader = data.train_dataloader() if split == "train" else data.val_dataloader()
    return [{key: batch[key] for key in ("u0", "index", "key")} for batch in loader]


def same(a, b) -> bool:
    return len(a) == len(b) and all(torch.equal(x[key], y[key]) for x, y in zip(a, b, strict=True) for key in x)


@pytest.mark.parametrize("settings", [{}, {"flip": True, "limit": 7}, {"num_workers": 2}])
def test_a_packed_file_gives_the_bits_of_the_folder_it_was_packed_from(pair, settings) -> None:
    source, out = pair
    for split in ("train", "val"):
        assert same(batches(folder(source, **settings), split), batches(packed(out, **settings), split))
    for split in ("train", "val", "test"):
        own, other = folder(source).images(split), packed(out).images(split)
        assert torch.equal(own.pixels(range(len(own))), other.pixels(range(len(other)))) and other.labels is None


def test_a_packed_file_says_where_it_comes_from(pair) -> None:
    source, out = pair
    data = packed(out)
    for split in ("train", "val", "test"):
        data.images(split)
    report = data.report()
    told = report["packed"]
    assert told["path"] == str(source) and told["images"] == report["images"] == {"train": 18, "val": 5, "test": 1}
    assert told["command"].startswith("heatgen pack data=image_folder") and told["versions"]["pillow"]
    assert told["settings"]["resize"] == "shorter" and "batch_size" not in told["settings"]
    json.dumps(report)


def test_the_checksum_is_of_the_content_and_names_the_splits_in_caches(pair, tmp_path, monkeypatch) -> None:
    source, out = pair
    monkeypatch.setattr(blocks, "ROWS", 4)
    again = tmp_path / "again.h5"
    words = [f"data.path={source}", f"data.shape={SHAPE}", "data.val_fraction=0.2", "data.num_workers=2"]
    assert pack(*words, f"out={again}", monkeypatch=monkeypatch) == 0
    one, two = packed(out), packed(again)
    assert one.packed.checksum == two.packed.checksum and one.packed.source["date"] <= two.packed.source["date"]
    prints = [data.images(split).fingerprint() for data in (one, two) for split in ("train", "val")]
    assert prints[:2] == prints[2:] and len(set(prints)) == 2


def test_classes_are_kept_and_images_can_be_read_by_a_process_that_was_given_the_set(tmp_path, monkeypatch) -> None:
    out = tmp_path / "digits.h5"
    assert pack("data=digits", "data.limit=100", f"out={out}", monkeypatch=monkeypatch) == 0
    from heatgen.data.digits import Digits

    own, data = Digits(shape=[1, 8, 8], limit=100), PackedData(path=str(out), shape=[1, 8, 8])
    for split in ("train", "val", "test"):
        assert torch.equal(own.images(split).labels, data.images(split).labels)
        assert torch.equal(own.images(split).pixels(range(100)), data.images(split).pixels(range(100)))


def test_a_file_whose_images_lie_in_pieces_is_read_too(pair, tmp_path) -> None:
    out = pair[1]
    pieces = tmp_path / "pieces.h5"
    with h5py.File(out) as source, h5py.File(pieces, "w") as file:
        file.attrs.update(source.attrs)
        for name in ("sums", "source"):
            source.copy(name, file)
        file.create_dataset("images", data=source["images"][()], chunks=(5, 3, 6, 8), compression="gzip")
    assert packed(pieces).packed.offset is None
    assert same(batches(packed(out)), batches(packed(pieces, num_workers=1)))


def change(path: Path, name: str) -> None:
    """Spoil a packed file."""
    content = path.read_bytes()
    if name == "short":
        path.write_bytes(content[:-100])
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "other":
        path.write_bytes(b"PK\x03\x04" + content[4:])
    elif name == "folder":
        path.unlink()
        path.mkdir()
    elif name == "gone":
        path.unlink()
    else:
        with h5py.File(path, "r+") as file:
            if name == "foreign":
                del file.attrs["format"]
            elif name == "newer":
                file.attrs["version"] = 3
            elif name == "dtype":
                images = file["images"][()].astype(np.float32)
                del file["images"]
                file["images"] = images
            elif name == "count":
                file.attrs["train"] = 19
            elif name == "sums":
                file["sums"][0, 0] ^= 1
            elif name == "no sums":
                del file["sums"]
            elif name == "classes":
                file["labels/train"] = np.full(file.attrs["train"], np.nan)
            elif name == "endless":  # it claims more than any machine holds
                del file["images"]
                file.attrs["train"] = 2**40
                more = 2**40 + file.attrs["val"] + file.attrs["test"]
                file.create_dataset("images", (more, *SHAPE), np.uint8, chunks=(1, *SHAPE))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("short", r"is cut short at \d+ bytes; copy it again, or pack it again"),
        ("empty", "is cut short at 0 bytes; copy it again"),
        ("other", r"is not an HDF5 file \(it starts with .*\); give one that heatgen pack has written"),
        ("folder", "is a folder; pack it with heatgen pack, or read it with data=image_folder"),
        ("gone", "is not there; give the packed file as data.path=FILE"),
        ("foreign", r"is not a packed file \(it holds `images` .*\); give one that heatgen pack"),
        ("newer", "is of version 3 of packed files, and this heatgen reads up to 2; use a newer heatgen, or pack it again"),
        ("dtype", r"holds images of float32, not bytes \(uint8\); pack them again"),
        ("count", "holds images .* and says train 19, val 5, test 1; copy it again"),
        ("sums", r"is damaged \(its checksum differs\); copy it again"),
        ("classes", "is damaged .*; copy it again"),
        ("endless", "is damaged .*; copy it again"),
        ("no sums", "is damaged .*; copy it again"),
    ],
)
def test_a_file_that_is_not_what_was_packed_is_named_in_one_sentence(pair, name: str, words: str) -> None:
    out = pair[1]
    change(out, name)
    with pytest.raises(ConfigError, match=rf"^data\.path = {out} {words}") as caught:
        packed(out).images("train")
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_images_of_another_shape_are_refused_and_the_config_takes_that_of_the_file(pair) -> None:
    from heatgen import compose

    out = pair[1]
    with pytest.raises(
        ConfigError, match=r"holds images of shape \[3, 6, 8\], and data.shape is \[3, 8, 8\]; leave data.shape"
    ):
        packed(out, shape=[3, 8, 8]).images("train")
    assert compose("data=packed", f"data.path={out}").net.shape == SHAPE
    with pytest.raises(ConfigError, match=r"data\.path is not given; write data\.path=FILE"):
        packed("")


@pytest.mark.parametrize("workers", [0, 2])
def test_a_changed_byte_is_found_when_its_block_is_read_or_before_all(pair, workers: int) -> None:
    out = pair[1]
    offset = packed(out).packed.offset
    with out.open("r+b") as file:
        file.seek(offset + 5 * 144)  # image 5, in the block of images 4 to 7
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))
    images = packed(out).images("train")
    assert len(images.pixels([0, 3, 8])) == 3
    with pytest.raises(
        ConfigError, match=r"of its train images 4 to 7 the checksum differs.*copy it again, or pack it again"
    ):
        images.pixels([6])
    with pytest.raises(ConfigError, match="train images 4 to 7"):
        packed(out, verify="whole").images("train")
    with pytest.raises(ConfigError, match="train images 4 to 7"):
        batches(packed(out, num_workers=workers))
    assert len(packed(out, verify="none").images("train").pixels(range(8))) == 8


def test_loading_processes_tell_each_other_what_they_have_verified(pair) -> None:
    data = packed(pair[1], num_workers=2)
    batches(data)
    assert data.images("train").verified.all()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["data.path=P"], "out is missing; give the file to write as out=FILE."),
        (["out=F"], "data.path is not given; write data.path=FOLDER"),
        (["data.path=P", "out=F", "data.flip=true"], "data.flip is not of the images but of their use"),
        (["data.path=P", "out=F", "data.crop=random"], "data.crop=random draws another crop each time"),
        (["data=grf", "out=F"], "data=grf has continuous fields, and a packed file holds images of bytes"),
        (["data.path=P", "out=P"], "is a folder; give a file in it"),
        (["data.path=P", "out=/proc/none/F"], "cannot be written"),
        (["data.path=P", "out=F", "model=ihd"], "model is nothing that pack uses; remove model="),
        (["data.path=P", "out=F", "date.limit=3"], "date.limit is not a key of the config; did you mean data.limit?"),
    ],
)
def test_what_cannot_be_packed_is_refused_in_one_sentence(tmp_path, monkeypatch, capfd, words, sentence) -> None:
    source = folder_of(tmp_path / "pictures", 6)
    places = {"P": str(source), "F": str(tmp_path / "out.h5")}
    filled = [f"{key}={places.get(value, value)}" for key, _, value in (word.partition("=") for word in words)]
    assert pack(*filled, monkeypatch=monkeypatch) == 1
    lines = [line for line in capfd.readouterr().err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1 and sentence in lines[0]
    assert {path.name for path in tmp_path.iterdir()} == {"pictures"}


def test_a_file_that_is_there_or_being_written_or_breaks_off_is_left_alone(tmp_path, monkeypatch, capfd) -> None:
    from heatgen.runtime import claim

    source, out = folder_of(tmp_path / "pictures", 8), tmp_path / "out.h5"
    words = [f"data.path={source}", f"data.shape={SHAPE}", f"out={out}"]
    held = claim.attempt(tmp_path / ".out.h5.lock")
    assert pack(*words, monkeypatch=monkeypatch) == 1
    assert "is being written by another process; wait for it or end it." in capfd.readouterr().err
    os.close(held)
    broken = sorted(source.iterdir())[5]
    content = broken.read_bytes()
    broken.write_bytes(content[:60])
    assert pack(*words, "data.num_workers=1", monkeypatch=monkeypatch) == 1
    assert f"Error: {broken} is not a complete image" in capfd.readouterr().err and not out.exists()
    broken.write_bytes(content)
    assert pack(*words, monkeypatch=monkeypatch) == 0
    before = out.read_bytes()
    assert pack(*words, monkeypatch=monkeypatch) == 1
    assert "is already there; choose another out, or replace it with overwrite=true." in capfd.readouterr().err
    assert out.read_bytes() == before
    assert pack(*words, "overwrite=true", "data.limit=3", monkeypatch=monkeypatch) == 0
    assert packed_file.read_header(out).sizes["train"] == 3 and len(list(tmp_path.iterdir())) == 2


def test_results_of_two_packed_files_do_not_share_a_name(pair, tmp_path) -> None:
    other = Path(shutil.copy(pair[1], tmp_path / "my faces (2).h5"))
    for path, name in ((pair[1], "packed-packed"), (other, "packed-my_faces_2")):
        config = compose("data=packed", f"data.path='{path}'")
        assert config.data_name == name and config.name == f"ihd-heat-{name}"
    assert compose("data=digits").data_name == "digits"


@pytest.mark.slow
def test_a_training_on_a_packed_file_ends_with_the_weights_of_one_on_its_folder(pair, tmp_path) -> None:
    source, out = pair
    own = [*SMALL, "data.flip=true", "data.batch_size=4", "trainer.max_steps=4", "callback.pictures.n=2"]
    small = ["net.multipliers=[1,1]", "net.num_res_blocks=1", "net.attention_levels=[]"]
    place = [f"data.path={source}", f"data.shape={SHAPE}", "data.val_fraction=0.2"]
    states = []
    for name, words in (("folder", ["data=image_folder", *place]), ("packed", ["data=packed", f"data.path={out}"])):
        assert call("train", *own, *small, *words, f"hydra.run.dir={tmp_path / name}") == 0
        states.append(torch.load(tmp_path / name / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"])
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][key], states[1][key]) for key in states[0])
    told = json.loads((tmp_path / "packed" / "data.json").read_text())
    assert told["checksum"] == packed(out).packed.checksum and told["packed"]["path"] == str(source)
