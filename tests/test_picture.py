"""Bytes, grids, GIFs, videos and films of the way back."""

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from PIL import Image

from heatgen.picture import MARGIN, Film, grid, save_gif, save_mp4, to_bytes


def plain(value, width=32, height=24):
    return Image.new("RGB", (width, height), (value, value, value))


def test_bytes_are_rounded_or_truncated_and_clipped():
    u = torch.tensor([0.999, 0.5 / 255 + 1e-4, 0.5 / 255 - 1e-4, -0.3, 1.7, 1.0])
    assert to_bytes(u).tolist() == [255, 1, 0, 0, 255, 255]
    assert to_bytes(u, truncate=True).tolist() == [254, 0, 0, 0, 255, 255]


def test_bytes_come_back_from_their_fractions():
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_bytes(values.float() / 255), values)


def test_a_grid_puts_each_image_in_its_row_and_column_enlarged_by_a_whole_factor():
    u = torch.rand(5, 3, 10, 20, generator=torch.Generator().manual_seed(0))
    sheet = np.asarray(grid(u, columns=3))
    factor = 2  # the smallest that makes the longer side 40 pixels or more
    height, width = 10 * factor, 20 * factor
    assert sheet.shape == (2 * (height + MARGIN) + MARGIN, 3 * (width + MARGIN) + MARGIN, 3)
    expected = to_bytes(u).permute(0, 2, 3, 1).numpy()
    for i in range(5):
        y, x = MARGIN + (i // 3) * (height + MARGIN), MARGIN + (i % 3) * (width + MARGIN)
        tile = sheet[y : y + height, x : x + width].reshape(10, factor, 20, factor, 3)
        assert np.array_equal(tile, np.broadcast_to(expected[i][:, None, :, None], tile.shape))
    empty = sheet[MARGIN + height :, MARGIN + 2 * (width + MARGIN) :]
    assert len(np.unique(empty)) == 1


def test_a_large_image_keeps_its_size_and_grey_shows_in_all_channels():
    u = torch.linspace(0, 1, 70 * 3).reshape(1, 1, 3, 70)
    sheet = np.asarray(grid(u))
    assert sheet.shape == (3 + 2 * MARGIN, 70 + 2 * MARGIN, 3)
    assert np.array_equal(sheet[MARGIN:-MARGIN, MARGIN:-MARGIN], np.repeat(to_bytes(u)[0, 0].numpy()[..., None], 3, 2))


@pytest.mark.parametrize(("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (5, 2, 3), (9, 3, 3), (10, 3, 4)])
def test_a_grid_has_about_as_many_rows_as_columns(count, rows, columns):
    assert grid(torch.zeros(count, 1, 64, 64)).size == (columns * (64 + MARGIN) + MARGIN, rows * (64 + MARGIN) + MARGIN)


def test_a_gif_shows_every_frame_and_holds_the_last(tmp_path):
    values = [0, 80, 160, 240]
    save_gif(tmp_path / "film.gif", [plain(v) for v in values], milliseconds=60, hold=25)
    with Image.open(tmp_path / "film.gif") as film:
        assert film.n_frames == 4 and film.info["loop"] == 0
        shown, durations = [], []
        for i in range(4):
            film.seek(i)
            shown.append(film.convert("L").getpixel((5, 5)))
            durations.append(film.info["duration"])
    assert shown == values
    assert durations == [60, 60, 60, 60 * 26]


@pytest.mark.parametrize("size", [(32, 24), (33, 25)])
def test_a_video_shows_every_frame_in_order_and_holds_the_last(tmp_path, size):
    values = [10, 90, 170, 250]
    save_mp4(tmp_path / "film.mp4", [plain(v, *size) for v in values], fps=10, hold=3)
    reader = imageio_ffmpeg.read_frames(str(tmp_path / "film.mp4"))
    facts = next(reader)
    frames = [np.frombuffer(frame, np.uint8) for frame in reader]
    assert facts["size"] == (32, 24) and facts["fps"] == 10
    assert len(frames) == 4 + 3
    for frame, value in zip(frames, [*values, 250, 250, 250], strict=True):
        assert abs(frame.mean() - value) < 4


def play(film, num_levels, samples):
    """Show a batch of which sample i at level k is the number 1000 i + k."""
    film.begin()
    for k in range(num_levels, -1, -1):
        film.see(k, 1000.0 * torch.tensor(samples).reshape(-1, 1, 1, 1) + k)


def numbers(film):
    return film.states(torch.empty(0, 1, 1, 1))[:, :, 0, 0, 0].tolist()


def test_a_film_keeps_every_level_of_a_short_way():
    film = Film(num_levels=4, tiles=2, length=50)
    play(film, 4, [0, 1])
    assert numbers(film) == [[4, 3, 2, 1, 0], [1004, 1003, 1002, 1001, 1000]]


def test_a_film_of_a_long_way_keeps_evenly_spaced_levels_and_the_last():
    film = Film(num_levels=20, tiles=1, length=6)
    play(film, 20, [0, 1])
    assert numbers(film) == [[20, 16, 12, 8, 4, 0]]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 12])
def test_a_film_keeps_the_first_samples_of_many_batches(size):
    film = Film(num_levels=2, tiles=4)
    for start in range(0, 12, size):
        play(film, 2, range(start, min(start + size, 12)))
    assert numbers(film) == [[1000 * i + 2, 1000 * i + 1, 1000 * i] for i in range(4)]


def test_a_film_of_no_samples_is_empty():
    assert Film(num_levels=2).states(torch.empty(0, 1, 5, 6)).shape == (0, 1, 1, 5, 6)
