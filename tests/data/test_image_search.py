"""What of a folder is taken, for which split, and what is left out and counted; never a hang."""

import json
import logging
import os
from pathlib import Path

import pytest
from PIL import Image

from heatgen.check import ConfigError
from heatgen.data import image_walk
from heatgen.data.image_folder import ImageFolder
from heatgen.data.image_search import search, split_named


def fill(folder: Path, count: int, suffix: str = "png") -> list[Path]:
    """`count` images in a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        Image.new("L", (8, 8), i).save(folder / f"{i:03d}.{suffix}")
    return sorted(folder.iterdir())


def left_out(root: Path) -> dict[str, int]:
    return dict(search(root).left_out.counts)


def train(root: Path) -> list[Path]:
    return search(root).paths["train"]


def test_folders_and_files_behind_links_are_taken_once(tmp_path: Path) -> None:
    root, outside = tmp_path / "pictures", tmp_path / "outside"
    real, linked = fill(root / "a", 4), fill(outside, 3)
    (root / "0").symlink_to(root / "a")  # comes first by name, and is no reason to call the real folder the copy
    (root / "b").symlink_to(outside)
    (root / "c").symlink_to(outside)
    (root / "0.png").symlink_to(real[0])
    (root / "z.png").symlink_to(real[1])
    os.link(real[2], root / "hard.png")
    found = train(root)
    assert set(real) - {real[2]} <= set(found)
    assert [path for path in found if path.parent == root / "b"] == [root / "b" / path.name for path in linked]
    assert len(found) == 7 and len({os.path.realpath(path) for path in found}) == 7
    assert left_out(root) == {image_walk.AGAIN: 5}


def test_links_in_circles_and_to_what_holds_them_end_and_bring_nothing_from_outside(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    own = fill(root / "a" / "b", 3)
    fill(tmp_path / "other", 5)
    for place, target in (("a/up", ".."), ("a/b/top", root), ("out", tmp_path), ("all", "/"), ("self.png", "self.png")):
        (root / place).symlink_to(target)
    (root / "x").symlink_to(root / "y")
    (root / "y").symlink_to(root / "x")
    assert train(root) == own
    assert left_out(root) == {image_walk.LOOP: 4, image_walk.DANGLING: 3}


def test_a_root_or_a_split_that_is_a_link_is_followed(tmp_path: Path) -> None:
    fill(tmp_path / "v1", 4)
    fill(tmp_path / "held", 2)
    (tmp_path / "v1" / "test").symlink_to(tmp_path / "held")
    (tmp_path / "v1" / "again").symlink_to(tmp_path / "held")  # would train on the test images
    (tmp_path / "now").symlink_to("v1")
    found = search(tmp_path / "now")
    assert {split: len(paths) for split, paths in found.paths.items()} == {"train": 4, "test": 2}
    assert found.left_out.counts == {image_walk.AGAIN: 1}


def test_what_is_hidden_or_made_by_a_system_is_left_out(tmp_path: Path) -> None:
    own = fill(tmp_path / "cats", 3)
    for name in (".ipynb_checkpoints", ".thumbnails", "__MACOSX", "@eaDir/x.png", "$RECYCLE.BIN", ".git/objects"):
        fill(tmp_path / "cats" / name, 2)
    (tmp_path / "cats" / "._000.png").write_bytes(b"\0\5\x16\7" + bytes(40))
    (tmp_path / "cats" / ".DS_Store").write_bytes(b"no image")
    assert train(tmp_path) == own and left_out(tmp_path) == {image_walk.HIDDEN: 13}


def test_what_is_no_image_file_is_counted_with_examples_and_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    own = fill(tmp_path, 3)
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zz.png").symlink_to("/nowhere/x.png")
    for name in ("a.txt", "b.txt", "c.heic", "d", os.fsdecode(b"\xff\n.csv")):
        (tmp_path / name).touch()
    found = search(tmp_path)
    assert found.paths == {"train": own}
    assert found.left_out.counts == {image_walk.SPECIAL: 1, image_walk.DANGLING: 1, image_walk.SUFFIX: 5}
    words = found.left_out.words(tmp_path)
    assert "1 links that lead nowhere (zz.png -> /nowhere/x.png)" in words and "(a.txt, c.heic, d, ...)" in words
    words.encode()
    json.dumps(found.left_out.facts()).encode()


@pytest.mark.parametrize("suffix", ["gif", "jfif", "JPG", "webp", "tga", "jp2", "bmp"])
def test_every_suffix_that_pillow_reads_is_taken(tmp_path: Path, suffix: str) -> None:
    fill(tmp_path, 2)
    Image.new("RGB", (8, 8)).save(tmp_path / f"more.{suffix}")
    assert len(train(tmp_path)) == 3 and not left_out(tmp_path)


@pytest.mark.parametrize(
    ("split", "names"),
    [
        ("train", ["train", "TRAIN", "Training", "train_set", "train2017", "training-data"]),
        ("val", ["val", "Val", "valid", "VALIDATION", "dev", "validation set", "val2017"]),
        ("test", ["test", "Test", "TESTING", "eval", "evaluation", "holdout", "hold-out", "held_out", "test_images"]),
        (None, ["trains", "contest", "latest", "value", "device", "test1", "trainA", "developer", ".test", "cats", "evil"]),
    ],
)
def test_a_split_is_known_by_its_usual_names_and_by_no_other(split: str | None, names: list[str]) -> None:
    assert {name: split_named(name) for name in names} == dict.fromkeys(names, split)


def test_images_of_test_folders_are_never_trained_on_whatever_they_are_called(tmp_path: Path) -> None:
    fill(tmp_path / "Train", 5)
    fill(tmp_path / "HoldOut", 3)
    fill(tmp_path / "Dev", 2)
    fill(tmp_path / "more", 4)
    found = search(tmp_path)
    assert {split: len(paths) for split, paths in found.paths.items()} == {"train": 5, "test": 3, "val": 2}
    assert found.left_out.counts == {image_walk.BESIDE: 4}


def test_two_folders_for_one_split_are_refused_by_both_names(tmp_path: Path) -> None:
    fill(tmp_path / "test", 2)
    fill(tmp_path / "Testing", 2)
    with pytest.raises(ConfigError, match=r"Testing and .*test both claim to be the test split"):
        search(tmp_path)


def test_a_link_for_a_split_that_leads_nowhere_is_refused_and_one_to_another_split_is_said(tmp_path: Path) -> None:
    fill(tmp_path / "train", 4)
    (tmp_path / "val").symlink_to(tmp_path / "moved")
    with pytest.raises(ConfigError, match=r"val, the val split, is a link that leads nowhere"):
        search(tmp_path)
    (tmp_path / "val").unlink()
    (tmp_path / "val").symlink_to("train")
    assert search(tmp_path).notes == ["4 files are in both train and val, through links."]


def test_a_folder_named_like_a_split_that_is_not_looked_at_is_said(tmp_path: Path) -> None:
    fill(tmp_path / "afhq" / "train", 4)
    fill(tmp_path / "afhq" / "Test" / "cat", 2)
    (note,) = search(tmp_path).notes
    assert note.startswith(f"2 training images are in {tmp_path}/afhq/Test;") and f"data.path={tmp_path}/afhq." in note
    assert not search(tmp_path / "afhq").notes


def test_a_folder_whose_images_are_all_left_out_says_why(tmp_path: Path) -> None:
    fill(tmp_path / ".cache", 2)
    with pytest.raises(ConfigError, match=r"holds no image \(left out: 2 hidden or made by a system \(\.cache"):
        search(tmp_path)


def test_a_folder_says_once_what_it_took_and_reports_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    fill(tmp_path / "Train", 10)
    fill(tmp_path / "test", 3)
    fill(tmp_path / ".hidden", 1)
    data = ImageFolder(path=str(tmp_path), shape=[1, 8, 8], val_fraction=0.2, limit=5)
    with caplog.at_level(logging.INFO, "heatgen"):
        data.prepare_data()
        data.images("test")
    lines = [record.getMessage() for record in caplog.records]
    assert lines == [
        f"data.path = {tmp_path}, image files: train 8 (folder Train), val 2 (held out), test 3 (folder test)",
        "left out: 1 hidden or made by a system (.hidden)",
        "data.limit: 5 of 8 train images, the same random ones in every run",
    ]
    facts = json.loads(json.dumps(data.report()))
    assert facts["images"] == {"train": 5, "val": 2, "test": 3} and facts["limit"] == 5
    assert facts["files"] == {"train": 8, "val": 2, "test": 3}
    assert facts["left_out"] == [
        {"reason": "hidden or made by a system", "count": 1, "examples": [str(tmp_path / ".hidden")]}
    ]


def test_frames_of_one_file_stay_in_one_split(tmp_path: Path) -> None:
    for i in range(10):
        first, *rest = [Image.new("L", (8, 8), 10 * i + j) for j in range(3)]
        first.save(tmp_path / f"{i}.tif", save_all=True, append_images=rest)
    settings = {"path": str(tmp_path), "shape": [1, 8, 8], "val_fraction": 0.3, "test_fraction": 0.2}
    for limit in (0, 100):
        data = ImageFolder(**settings, frames="all", cache_limit=limit)
        found = [data.images(split).pixels(range(len(data.images(split))))[:, 0, 0, 0] for split in ("train", "val", "test")]
        assert [len(greys) for greys in found] == [15, 9, 6]
        assert (
            len({int(grey) // 10 for greys in found for grey in greys}) == 10 == sum(len((g // 10).unique()) for g in found)
        )
    first = ImageFolder(**settings)
    assert len(first.images("train")) == 5
    (note,) = first.report()["notes"]
    assert note.startswith("10 of the 10 files") and note.endswith("data.frames=all takes each of them.")


def test_a_path_holds_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "pictures", 6)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for path in ("pictures", "~/pictures", str(tmp_path / "pictures")):
        data = ImageFolder(path=path, shape=[1, 8, 8])
        assert data.path == tmp_path / "pictures"
    monkeypatch.chdir("/")
    assert len(data.images("train")) == 4


@pytest.mark.parametrize(("count", "words"), [(1, "holds 1 training image, too"), (2, "holds 2 training images, too few")])
def test_too_few_images_to_hold_some_out_are_counted(tmp_path: Path, count: int, words: str) -> None:
    fill(tmp_path, count)
    with pytest.raises(ConfigError, match=rf"{words}.* hold out test and val as well; add images, or folders"):
        ImageFolder(path=str(tmp_path), shape=[1, 8, 8]).images("val")


def test_fractions_that_leave_nothing_to_train_on_are_named(tmp_path: Path) -> None:
    fill(tmp_path, 10)
    with pytest.raises(ConfigError, match=r"data\.test_fraction and data\.val_fraction leave none of the 10 .*; lower them"):
        ImageFolder(path=str(tmp_path), shape=[1, 8, 8], val_fraction=0.5, test_fraction=0.5).images("train")
