"""Folders of images: finding, resizing, cropping, splitting, keeping in memory, and naming what is wrong."""

import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from heatgen.check import ConfigError
from heatgen.data.image_files import ImageFiles
from heatgen.data.image_folder import ImageFolder
from heatgen.data.image_search import search
from heatgen.runtime.explain import explain


def save(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array, dtype=np.uint8)).save(path)
    return path


def fill(folder, values):
    for value in values:
        save(folder / f"{value:03d}.png", np.full((8, 8), value))


def module(path, **settings):
    return ImageFolder(path=str(path), **{"shape": [1, 8, 8], "batch_size": 4} | settings)


def read(path, shape, resize="shorter", crop="centre", size=None, key=None):
    files = ImageFiles([path], shape, resize, crop, size or min(shape[1:]))
    return files.pixels([0], None if key is None else [key])[0]


def values(data, split):
    images = data.images(split)
    return sorted(images.pixels(range(len(images)))[:, 0, 0, 0].tolist())


def close(image, expected, tolerance=1.0):
    return (image.double() - torch.tensor(np.array(expected))).abs().max() <= tolerance


def test_images_are_found_however_deep_and_nothing_else_is(tmp_path):
    paths = [save(tmp_path / name, np.zeros((2, 2))) for name in ("b.png", "x/y/z/a.JPG", "x/c.bmp")]
    (tmp_path / "x" / "notes.txt").write_text("no image")
    assert search(tmp_path).paths == {"train": sorted(paths)}


@pytest.mark.parametrize("cache_limit", [0, 1])
def test_images_in_folders_have_no_labels(tmp_path, cache_limit):
    fill(tmp_path / "train", range(6))
    data = module(tmp_path, cache_limit=cache_limit)
    assert all(data.images(split).labels is None for split in ("train", "val", "test"))


def test_colours_become_luma_and_grey_becomes_three_equal_channels(tmp_path):
    rgb = np.broadcast_to(np.array([200, 100, 50]), (4, 4, 3))
    grey = read(save(tmp_path / "colour.png", rgb), (1, 4, 4))
    assert close(grey, 0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert read(save(tmp_path / "colour.png", rgb), (3, 4, 4))[:, 0, 0].tolist() == [200, 100, 50]
    three = read(save(tmp_path / "grey.png", np.arange(16).reshape(4, 4)), (3, 4, 4))
    assert torch.equal(three, torch.arange(16, dtype=torch.uint8).reshape(1, 4, 4).expand(3, -1, -1))


def test_an_image_of_sixteen_bits_keeps_its_brightness(tmp_path):
    Image.fromarray(np.full((4, 4), 30000, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert close(read(tmp_path / "deep.png", (1, 4, 4)), 30000 / 65535 * 255)


def test_a_wide_image_is_scaled_by_its_height_and_cropped_in_the_middle(tmp_path):
    wide = np.broadcast_to(2 * np.arange(96), (24, 96))
    image = read(save(tmp_path / "wide.png", wide), (1, 12, 20))
    columns = (14 + np.arange(20) + 0.5) * 2 - 0.5  # half the size: 12 x 48, of which columns 14 to 33
    assert close(image[0], np.broadcast_to(2 * columns, (12, 20)))


def test_a_square_image_fills_a_wide_target_and_loses_its_top_and_bottom(tmp_path):
    square = np.broadcast_to(4 * np.arange(60)[:, None], (60, 60))
    image = read(save(tmp_path / "square.png", square), (1, 8, 20))
    rows = (6 + np.arange(8) + 0.5) * 3 - 0.5  # a third of the size: 20 x 20, of which rows 6 to 13
    assert close(image[0], np.broadcast_to(4 * rows[:, None], (8, 20)))


def test_resize_to_scales_to_a_larger_size_before_the_crop(tmp_path):
    ramp = np.broadcast_to(5 * np.arange(48), (48, 48))
    image = read(save(tmp_path / "ramp.png", ramp), (1, 8, 8), size=16)
    columns = (4 + np.arange(8) + 0.5) * 3 - 0.5
    assert close(image[0], np.broadcast_to(5 * columns, (8, 8)))


def test_stretch_scales_each_side_by_itself(tmp_path):
    y, x = np.mgrid[:40, :30]
    image = read(save(tmp_path / "ramp.png", y + 5 * x), (1, 8, 15), resize="stretch")
    rows, columns = np.mgrid[:8, :15]
    expected = (rows + 0.5) * 5 - 0.5 + 5 * ((columns + 0.5) * 2 - 0.5)
    assert close(image[0, 2:-2, 2:-2], expected[2:-2, 2:-2])  # kernels reach over the border


def test_none_crops_the_middle_and_changes_no_pixel(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (11, 14, 3), dtype=np.uint8)
    image = read(save(tmp_path / "image.png", pixels), (3, 5, 6), resize="none")
    assert np.array_equal(image.permute(1, 2, 0), pixels[3:8, 4:10])


def test_an_image_of_the_right_size_is_read_unchanged(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6), dtype=np.uint8)
    for resize in ("shorter", "stretch", "none"):
        assert np.array_equal(read(save(tmp_path / "image.png", pixels), (1, 5, 6), resize)[0], pixels)


def corners(tmp_path, keys):
    y, x = np.mgrid[:7, :9]
    files = ImageFiles([save(tmp_path / "image.png", 10 * y + x)], (1, 5, 5), "none", "random", 5)
    return files.pixels([0] * len(keys), keys)[:, 0, 0, 0].tolist()


def test_random_crops_are_uniform_over_all_places_and_repeat_by_key(tmp_path):
    found = corners(tmp_path, range(600))
    assert corners(tmp_path, range(300, 600)) == found[300:]
    places = [10 * top + left for top in range(3) for left in range(5)]
    counts = np.array([found.count(place) for place in places])
    assert counts.sum() == 600 and ((counts - 40) ** 2 / 40).sum() < 36.1  # chi-square of 14 degrees, p = 0.001


def test_crops_are_random_in_training_alone_and_depend_on_position(tmp_path):
    y, x = np.mgrid[:16, :16]
    for split, n in (("train", 6), ("val", 3), ("test", 1)):
        for i in range(n):
            save(tmp_path / split / f"{i}.png", 16 * y + x)
    data = module(tmp_path, crop="random", resize="none")
    data.trainer = SimpleNamespace(global_step=0, max_steps=9, global_rank=0, world_size=1, accumulate_grad_batches=1)
    first, again = (torch.cat([b["u0"] for b in data.train_dataloader()])[:, 0, 0, 0] * 255 for _ in range(2))
    assert torch.equal(first, again) and len(first.unique()) > 15
    data.trainer.global_step = 5
    assert torch.equal(torch.cat([b["u0"] for b in data.train_dataloader()])[:, 0, 0, 0] * 255, first[20:])
    middle = torch.full((3,), 4 * 16 + 4.0)
    for batches in (data.val_dataloader(), data.val_dataloader()):
        assert torch.equal(torch.cat([b["u0"] for b in batches])[:, 0, 0, 0] * 255, middle)
    assert torch.equal(data.prior_images([0, 1, 2], seed=0)[:, 0, 0, 0] * 255, middle)


def test_sub_folders_are_the_splits(tmp_path):
    fill(tmp_path / "train", range(10))
    fill(tmp_path / "valid", range(20, 23))
    fill(tmp_path / "test", range(30, 34))
    data = module(tmp_path)
    assert [values(data, split) for split in ("train", "val", "test")] == [
        list(range(10)),
        list(range(20, 23)),
        list(range(30, 34)),
    ]


@pytest.mark.parametrize("seed", [0, 1])
def test_without_sub_folders_the_splits_are_fractions_disjoint_and_complete(tmp_path, seed):
    fill(tmp_path, range(40))
    data = module(tmp_path, val_fraction=0.25, test_fraction=0.1, seed=seed)
    train, val, test = (values(data, split) for split in ("train", "val", "test"))
    assert (len(test), len(val)) == (4, 10)
    assert sorted(train + val + test) == list(range(40))
    assert test == values(module(tmp_path, val_fraction=0.25, test_fraction=0.1), "test")


def test_a_missing_val_folder_is_held_out_of_train(tmp_path):
    fill(tmp_path / "train", range(20))
    fill(tmp_path / "test", range(30, 34))
    data = module(tmp_path, val_fraction=0.2)
    assert len(values(data, "val")) == 4 and values(data, "test") == list(range(30, 34))
    assert sorted(values(data, "train") + values(data, "val")) == list(range(20))


def test_images_of_a_test_folder_are_never_trained_on(tmp_path):
    fill(tmp_path, range(20))
    fill(tmp_path / "test", range(30, 34))
    data = module(tmp_path)
    assert values(data, "test") == list(range(30, 34))
    assert sorted(values(data, "train") + values(data, "val")) == list(range(20))


def test_images_in_memory_are_those_that_are_read_lazily(tmp_path):
    rng = np.random.default_rng(0)
    for i in range(12):
        save(tmp_path / f"{i:02d}.png", rng.integers(0, 256, (10 + i, 20, 3)))
    settings = {"shape": [3, 6, 7], "val_fraction": 0.2, "test_fraction": 0.2}
    cached, lazy = module(tmp_path, **settings), module(tmp_path, **settings, cache_limit=0)
    for split in ("train", "val", "test"):
        n = len(cached.images(split))
        assert torch.equal(cached.images(split).pixels(range(n)), lazy.images(split).pixels(range(n)))
    for path in tmp_path.glob("*.png"):
        path.unlink()
    assert cached.images("train").pixels([0]).shape == (1, 3, 6, 7)
    with pytest.raises(ConfigError):
        lazy.images("train").pixels([0])


def test_a_fingerprint_of_files_changes_with_a_file_and_with_the_size(tmp_path):
    fill(tmp_path, range(3))
    prints = [module(tmp_path, cache_limit=0).images("train").fingerprint() for _ in range(2)]
    prints.append(module(tmp_path, cache_limit=0, shape=[1, 4, 8]).images("train").fingerprint())
    for path in tmp_path.glob("*.png"):
        save(path, np.full((8, 8), 99))
    prints.append(module(tmp_path, cache_limit=0).images("train").fingerprint())
    assert prints[0] == prints[1] and len(set(prints)) == 3


@pytest.mark.parametrize("path", [None, ""])
def test_no_path_says_what_to_write(path):
    with pytest.raises(ConfigError, match=r"write data\.path=FOLDER"):
        ImageFolder(path=path, shape=[1, 8, 8])


def test_a_missing_and_an_empty_folder_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"data\.path = .*nowhere is not a folder"):
        module(tmp_path / "nowhere").images("train")
    with pytest.raises(ConfigError, match=r"data\.path = .* holds no image"):
        module(tmp_path).images("train")


@pytest.mark.parametrize(
    ("key", "value"), [("val_fraction", 0), ("test_fraction", 0.6), ("resize_to", 7), ("crop", "center")]
)
def test_a_value_out_of_range_is_refused_by_its_key(tmp_path, key, value):
    with pytest.raises(ConfigError, match=rf"^data\.{key} must be"):
        module(tmp_path, **{key: value})


def test_an_image_smaller_than_the_shape_needs_resizing(tmp_path):
    path = save(tmp_path / "small.png", np.zeros((8, 7)))
    with pytest.raises(ConfigError, match=r"small\.png is smaller than data\.shape = \[1, 8, 8\]; use data\.resize=shorter"):
        read(path, (1, 8, 8), resize="none")
    assert read(path, (1, 8, 8)).shape == (1, 8, 8)


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "gif-named.png"])
@pytest.mark.parametrize("kept", [0, 0.02, 0.6])
def test_a_broken_file_is_named_in_one_sentence(tmp_path, suffix, kept):
    path = tmp_path / f"broken.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40), dtype=np.uint8)).save(
        path, "GIF" if "gif" in suffix else None
    )
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ConfigError) as caught:
        read(path, (1, 8, 8))
    assert str(caught.value).startswith(f"{path} is not a complete image") and "\n" not in str(caught.value)


def test_a_file_that_breaks_while_a_loading_process_reads_it_is_named_in_one_sentence(tmp_path):
    fill(tmp_path, range(12))
    data = module(tmp_path, cache_limit=0, num_workers=1)
    data.trainer = SimpleNamespace(global_step=0, max_steps=3, global_rank=0, world_size=1, accumulate_grad_batches=1)
    loader = data.train_dataloader()
    for path in tmp_path.glob("*.png"):
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ConfigError) as caught:
        list(loader)
    sentence = explain(caught.value)
    assert sentence.startswith(str(tmp_path)) and "is not a complete image" in sentence
    assert sentence.endswith("repair or remove it.") and "\n" not in sentence


@pytest.mark.parametrize(
    ("largest", "value_range", "said"), [(4095, "auto", True), (65535, "auto", False), (99, [0, 99], False)]
)
def test_files_of_sixteen_bits_that_use_a_small_part_of_them_are_said_to_be_dark(tmp_path, largest, value_range, said):
    for i in range(4):
        numbers = np.linspace(0, largest, 64).round().astype(np.uint16).reshape(8, 8)
        Image.fromarray(numbers).save(tmp_path / f"{i}.png")
    data = module(tmp_path, value_range=value_range)
    brightest = int(data.images("train").pixels([0]).max())
    assert brightest == (16 if said else 255)
    assert data.report()["notes"] == (
        [
            "no train pixel is brighter than 16 of 255; where 16-bit files use a part of their range alone, "
            "data.value_range=[lo,hi] says which."
        ]
        if said
        else []
    )


def test_one_of_several_processes_decodes_what_it_needs_once_and_its_loading_processes_share_it(tmp_path, monkeypatch):
    fill(tmp_path / "train", range(16))
    fill(tmp_path / "val", range(20, 23))
    fill(tmp_path / "test", range(30, 34))
    monkeypatch.setattr("heatgen.runtime.ranks.world", lambda: 2)
    own, alone = module(tmp_path, num_workers=2), module(tmp_path, cache_limit=0)
    trainer = {"global_step": 0, "max_steps": 2, "world_size": 2, "accumulate_grad_batches": 1}
    found = []
    for data in (own, alone):
        data.trainer = SimpleNamespace(global_rank=1, **trainer)
        found.append([batch["u0"] for batch in data.train_dataloader()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
    assert (
        4 <= own.images("train").there.sum() <= 5
    )  # 2 batches of 4, for 2 processes; and number 0, looked at for its shape
    for path in (tmp_path / "train").glob("*.png"):
        path.unlink()
    loader = own.train_dataloader()
    assert all(torch.equal(a, batch["u0"]) for a, batch in zip(found[0], loader, strict=True))
    copy = pickle.loads(pickle.dumps(own.images("val")))
    assert torch.equal(copy.pixels([2, 0]), own.images("val").pixels([2, 0])) and not own.images("val").there[1]


def test_images_beyond_the_limit_are_noted_with_the_way_out(tmp_path, caplog):
    fill(tmp_path, range(12))
    module(tmp_path, cache_limit=1e-4).images("train")
    assert "each is decoded again in each epoch" in caplog.text and "pack data.path=... out=FILE" in caplog.text
    caplog.clear()
    module(tmp_path, cache_limit=0).images("train")
    module(tmp_path).images("train")
    assert "decoded again" not in caplog.text
