"""Bytes, grids, GIFs, videos and films of the way back."""

import resource

import imageio_ffmpeg
import numpy as np
import pytest
import torch
from conftest import SMALL, call
from PIL import Image

from heatgen.app.draw import usual_n
from heatgen.check import ConfigError
from heatgen.picture import MARGIN, MARK, PAPER, Film, cloud, grid, is_points, save_gif, save_mp4, side_by_side, to_bytes
from heatgen.report import compare_figure


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


def test_a_video_that_cannot_be_ended_is_an_error_and_no_half_file(tmp_path):
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # it has 2082 bytes, written as the program ends
    try:
        with pytest.raises(ConfigError, match="cannot be written; free space"):
            save_mp4(tmp_path / "film.mp4", [plain(v) for v in range(5)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def play(film, num_levels, samples):
    """Show a batch of which sample i at level k is the number 1000 i + k."""
    film.begin()
    for k in range(num_levels, -1, -1):
        film.record(k, 1000.0 * torch.tensor(samples).reshape(-1, 1, 1, 1) + k)


def numbers(film):
    return film.states(torch.empty(0, 1, 1, 1))[:, :, 0, 0, 0].tolist()


def test_a_film_keeps_every_level_of_a_short_way():
    film = Film(num_steps=4, tiles=2, length=50)
    play(film, 4, [0, 1])
    assert numbers(film) == [[4, 3, 2, 1, 0], [1004, 1003, 1002, 1001, 1000]]


def test_a_film_of_a_long_way_keeps_evenly_spaced_levels_and_the_last():
    film = Film(num_steps=20, tiles=1, length=6)
    play(film, 20, [0, 1])
    assert numbers(film) == [[20, 16, 12, 8, 4, 0]]


@pytest.mark.parametrize("size", [1, 2, 3, 4, 12])
def test_a_film_keeps_the_first_samples_of_many_batches(size):
    film = Film(num_steps=2, tiles=4)
    for start in range(0, 12, size):
        play(film, 2, range(start, min(start + size, 12)))
    assert numbers(film) == [[1000 * i + 2, 1000 * i + 1, 1000 * i] for i in range(4)]


def test_a_film_of_no_samples_is_empty():
    assert Film(num_steps=2).states(torch.empty(0, 1, 5, 6)).shape == (0, 1, 1, 5, 6)


# points -----------------------------------------------------------------------------------------------------------------


def points(*rows):
    return torch.tensor(rows).reshape(len(rows), 1, 1, -1)


def inked(picture):
    """Where a cloud has ink, inside its frame."""
    return (np.abs(np.asarray(picture).astype(int) - PAPER).sum(2) > 60)[1:-1, 1:-1]


def test_points_are_of_one_channel_and_one_row():
    assert is_points((1, 1, 1)) and is_points([1, 1, 7]) and is_points(torch.zeros(2, 1, 1, 3).shape[1:])
    assert not is_points((1, 2, 2)) and not is_points((3, 1, 2))


@pytest.mark.parametrize("more", [[], [0.9], [9.0, -9.0, 0.1]])
def test_a_cloud_has_a_dot_at_a_point_and_none_elsewhere(more):
    picture = cloud(points([0.25, 0.75, *more]), size=200)  # to the right and up
    assert picture.size == (200, 200)
    rows, columns = np.nonzero(inked(picture))
    assert len(rows) > 5 and inked(picture)[49, 49]  # 50 from the left and the top, less the frame
    assert np.abs(rows - 49).max() <= 4 and np.abs(columns - 49).max() <= 4


def test_dots_on_each_other_are_darker():
    one, two = (np.asarray(cloud(points(*[[0.5, 0.5]] * n), size=200))[100, 100].astype(int) for n in (1, 2))
    assert (two < one - 20).all()


@pytest.mark.parametrize("outside", [[1.01, 0.5], [0.5, -0.01], [3.0, 3.0], [float("nan"), 0.5], [0.5, float("inf")]])
def test_points_outside_leave_no_ink(outside):
    assert not inked(cloud(points(outside))).any()
    assert not inked(cloud(points(outside).flip(-1))).any()


def test_points_on_the_edge_are_inside():
    assert inked(cloud(points([0.0, 0.0])))[-1, 0] and inked(cloud(points([1.0, 1.0])))[0, -1]


def test_the_tallest_bar_of_a_histogram_is_where_the_mass_is():
    values = torch.cat([torch.full((90,), 0.2), torch.full((30,), 0.7), torch.full((500,), 1.2), torch.full((500,), -0.2)])
    height = inked(cloud(values.reshape(-1, 1, 1, 1), size=305)).sum(0)  # 5 pixels a bar
    assert abs(height.argmax() - 0.2 * 305) <= 5 and height.max() > 0.9 * 303
    assert height[int(0.7 * 305)] == pytest.approx(height.max() / 3, abs=3)
    assert (height > 0).sum() == 10


@pytest.mark.parametrize("d", [1, 2, 5])
def test_a_grid_of_points_is_their_cloud_whatever_their_number(d):
    for count in (0, 1, 3000):
        u = torch.rand(count, 1, 1, d, generator=torch.Generator().manual_seed(0))
        assert grid(u, columns=3).tobytes() == cloud(u).tobytes() and grid(u).size == (320, 320)
        assert inked(grid(u)).any() == (count > 0)


def test_pictures_side_by_side_stand_in_order():
    row = np.asarray(side_by_side([plain(10, 20, 30), plain(90, 40, 20)]))
    assert row.shape == (30, 20 + 2 * MARGIN + 40, 3)
    assert (row[:, :20] == 10).all() and (row[:20, -40:] == 90).all()
    assert (row[:, 20 : 20 + 2 * MARGIN] == PAPER).all() and (row[20:, -40:] == PAPER).all()


def test_a_film_keeps_at_most_36_images_or_4096_points():
    for shape, most in (((1, 2, 2), 36), ((1, 1, 2), 4096)):
        film = Film(num_steps=1, tiles=5000)
        for _ in range(3):
            film.begin()
            film.record(1, torch.zeros(2000, *shape))
        assert film.states(torch.empty(0, *shape)).shape == (most, 1, *shape) and film.tiles == most


@pytest.mark.slow
@pytest.mark.parametrize("data", ["two_points", "swiss_roll"])
def test_a_run_of_points_is_drawn_as_clouds_and_samples_2000_unless_it_is_told(data, tmp_path):
    small = [f"data={data}", "model=diffusion", "forward=variance_exploding", *SMALL, "trainer.max_steps=2"]
    assert call("train", *small, "callback.pictures.n=7") == 0
    (run,) = (tmp_path / "runs").glob("diffusion-*/*")
    for options, n in (([], 2000), (["n=50"], 50), (["interpolate=true", "num_points=3"], 3)):
        assert call("sample", f"run={run}", "batch_size=2000", "seed=1", "trainer.accelerator=cpu", *options) == 0
        kind = "interpolation_" if "interpolate=true" in options else ""
        (folder,) = (run / "samples").glob(f"{kind}delta_*")
        content = torch.load(folder / "samples.pt", weights_only=True)
        assert len(content["samples"]) == n and content["settings"]["n"] == n
        for name in ("grid.png", "initial.png", "process.gif"):
            with Image.open(folder / name) as picture:
                assert picture.size == (320, 320)
    with Image.open(next((run / "samples").glob("step_*.png"))) as picture:
        assert picture.size == (320, 320)
    assert compare_figure.first_samples(run).size == (compare_figure.SIDE, compare_figure.SIDE)


def test_36_images_or_2000_points_are_usual():
    assert usual_n((1, 8, 8)) == usual_n((3, 1, 8)) == 36 and usual_n((1, 1, 2)) == 2000


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_has_a_colour_of_its_own_and_is_no_byte(bad):
    u = torch.zeros(3, 3, 40, 40)
    u[1, 2, 5, 6] = bad
    with pytest.raises(ConfigError, match=r"1 of 3 images hold NaN or inf \(the first is number 1\)"):
        to_bytes(u)
    sheet = np.asarray(grid(u, columns=3))
    marked = (sheet == MARK).all(-1).nonzero()
    assert [place.tolist() for place in marked] == [[MARGIN + 5], [40 + 2 * MARGIN + MARGIN - MARGIN + 6]]
    points = torch.full((4, 1, 1, 2), 0.5)
    assert cloud(torch.cat([points, points * bad])).tobytes() != cloud(torch.cat([points, points])).tobytes()
    assert cloud(points * bad).size == cloud(points).size
