"""callback.pictures.terminal: what a terminal shows of samples, and what stands where there is none."""

import io
import re
from pathlib import Path

import pytest
import torch
from PIL import Image
from rich.console import Console

from heatgen.callback.terminal import CLOUD, SIDE, half_blocks, sheet, show
from heatgen.picture import MARK


def terminal(width: int = 80, **options: object) -> Console:
    """A terminal of true colours, which keeps what is printed."""
    environment = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
    own = {"force_terminal": True, "color_system": "truecolor", "_environ": environment} | options
    return Console(file=io.TextIOWrapper(io.BytesIO(), encoding="utf-8"), width=width, **own)


def printed(console: Console) -> str:
    console.file.seek(0)
    return console.file.read()


def test_a_character_has_the_colours_of_two_pixels() -> None:
    picture = Image.new("RGB", (2, 3))
    for place, colour in {(0, 0): (1, 2, 3), (0, 1): (4, 5, 6), (1, 0): (7, 8, 9), (1, 2): (10, 11, 12)}.items():
        picture.putpixel(place, colour)
    console = terminal()
    console.print(half_blocks(picture), end="")
    first, last = printed(console).rstrip("\n").split("\n")
    cell = r"\x1b\[38;2;(\d+);(\d+);(\d+);48;2;(\d+);(\d+);(\d+)m▀"
    assert re.findall(cell, first) == [("1", "2", "3", "4", "5", "6"), ("7", "8", "9", "0", "0", "0")]
    assert re.findall(cell, last)[1] == ("10", "11", "12", "0", "0", "0")  # an odd row, on black


def test_samples_stand_in_two_rows_pixel_by_pixel() -> None:
    u = torch.rand(36, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    u[1, 0, 2, 3] = torch.nan
    picture = sheet(u, 79)
    assert picture.size == (8 * 9 - 1, 2 * 9 - 1)  # 8 samples across, with a line between
    for i, (x, y) in {0: (5, 6), 8: (1, 2)}.items():  # sample 8 is the first of the second row
        grey = round(255 * u[i, 0, y, x].item())
        assert picture.getpixel((x, (i // 8) * 9 + y)) == (grey, grey, grey)
    assert picture.getpixel((9 + 3, 2)) == MARK
    assert sheet(u[:3], 79).size == (2 * 9 - 1, 2 * 9 - 1) and sheet(u[:1], 79).size == (8, 8)


@pytest.mark.parametrize(("shape", "size"), [((3, 64, 32), (SIDE // 2, SIDE)), ((1, 1, 2), (CLOUD, CLOUD))])
def test_large_images_are_made_smaller_and_points_are_a_cloud(shape: tuple[int, ...], size: tuple[int, int]) -> None:
    u = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0))
    assert sheet(u, 79).size == size


def test_what_a_terminal_cannot_show_is_a_line_that_says_where_the_film_is(tmp_path: Path) -> None:
    u, film = torch.rand(4, 1, 8, 8), tmp_path / "process.gif"
    console = terminal()
    assert show(u, 500, film, console) and "▀" in printed(console) and printed(console).endswith("step 500\n")
    plain = Console(file=io.StringIO(), width=80)
    for other in (plain, terminal(width=30), terminal(no_color=True), terminal(color_system=None)):
        assert not show(u, 500, film, other)
    assert plain.file.getvalue() == f"step 500: {film}\n"
