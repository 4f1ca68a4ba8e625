"""The figure of a comparison: samples of every run, and a bar for each of its numbers."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heatgen.metric.pictures.figure import BLUE, DOUBLE, RED, TINY, plots, save, styled
from heatgen.report.better import better
from heatgen.report.page import cell
from heatgen.report.rows import Row
from heatgen.report.seeds import is_number
from heatgen.runtime.directory import read_info

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL import Image

SIDE = 64  # pixels of a cloud of points
SAMPLES = 10  # in a line, at most
ACROSS = 2.0  # inches that a panel has at least
OUTLIER, SPAN = 100.0, 30.0  # times the next largest bar: cut off; times the least one: a log scale
NEAR = 0.3  # of the largest number, spread over which numbers are dots on an axis without 0
LINES = ("--", ":", "-.")  # of what is known exactly


@styled()
def draw(
    run_dirs: Sequence[Path | None],
    rows: Sequence[Row],
    shown: Sequence[str],
    headings: Mapping[str, str],
    *paths: Path,
    width: float = DOUBLE,
) -> None:
    """A line for each row: the first samples of its run where any run drew some, then a bar for each number.

    Numbers have their standard error at the bar; what is known exactly (a row without a run) is a line through all bars. A
    bar that is far longer than the others is cut, with an arrow and its number.

    Args:
        run_dirs: whose samples stand in the rows; None where a row is what is known exactly.
        rows: the numbers.
        shown: the columns, words and numbers.
        headings: of the columns, for people.
        paths: the files to write, .png or .pdf.
        width: of the figure, in inches.
    """
    plt = plots()
    words = [column for column in shown if not any(is_number(row.get(column)) for row in rows)]
    numbers = [column for column in shown if column not in words and column != "seeds"]
    names = [" ".join(cell(row.get(column)) for column in words).rstrip() for row in rows]
    pictures = [None if run_dir is None else first_samples(run_dir) for run_dir in run_dirs]
    columns = [""] * (any(picture is not None for picture in pictures) or not numbers) + numbers
    across = min(max(1, int((width - 0.6) / ACROSS)), len(columns))
    down = -(-len(columns) // across)
    figure, grid = plt.subplots(
        *(down, across),
        figsize=(width, down * (0.19 * len(rows) + 0.75)),
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    axes = list(grid.flat)
    for spare in axes[len(columns) :]:
        spare.remove()
    for panel, column in zip(axes, columns, strict=False):
        panel.set(ylim=(len(rows) - 0.5, -0.5))
        panel.set_yticks(range(len(rows)), names, parse_math=False)  # text of files, in which $ is no mathematics
        if column:
            draw_bars(panel, run_dirs, rows, column)
            heading = textwrap.fill(headings.get(column, column), 34 if across > 1 else 50)
            panel.set_title(heading, parse_math=False)
        else:
            draw_samples(panel, pictures)
    if not columns[0]:
        figure.draw_without_rendering()  # which gives the panels their places
        box = axes[0].get_window_extent()
        axes[0].set_xlim(0, len(rows) * box.width / box.height)  # a pixel is a square
    save(figure, *paths)


def draw_samples(panel: "Axes", pictures: Sequence["Image.Image | None"]) -> None:
    """The samples of each row, and nothing where there are none."""
    for i, picture in enumerate(pictures):
        if picture is not None:
            wide = 0.96 * picture.width / picture.height
            panel.imshow(picture, extent=(0, wide, i + 0.48, i - 0.48), aspect="auto", interpolation="nearest")
    panel.set(ylim=(len(pictures) - 0.5, -0.5), xticks=[])
    panel.spines[:].set_visible(False)
    panel.set_title("samples")


def draw_bars(panel: "Axes", run_dirs: Sequence[Path | None], rows: Sequence[Row], column: str) -> None:
    """A bar for each row's number of a column, with its error and its text, within limits that an outlier does not move."""
    values = [value if is_number(value := row.get(column)) else math.nan for row in rows]
    errors = [error if is_number(error := row.get(f"{column}_se")) else math.nan for row in rows]
    low, high, log = limits(values)
    colours = ["0.6" if run_dir is None else BLUE for run_dir in run_dirs]
    known = None if all(map(math.isnan, errors)) else errors
    if low * high > 0 and not log:  # numbers so near each other that bars from 0 would look the same
        if known:
            panel.errorbar(values, range(len(rows)), xerr=known, fmt="none", ecolor="black", elinewidth=0.8)
        panel.scatter(values, range(len(rows)), color=colours, s=14, zorder=3)
    else:
        panel.barh(range(len(rows)), values, height=0.6, color=colours, xerr=known, error_kw={"elinewidth": 0.8})
    exact = [value for run_dir, value in zip(run_dirs, values, strict=True) if run_dir is None and low <= value <= high]
    for value, style in zip(exact, LINES * len(exact), strict=False):
        panel.axvline(value, color="0.4", linestyle=style, linewidth=0.9)
    if log:
        panel.set(xscale="log", xlim=(low, high * (high / low) ** 0.45))
    else:
        span = high - low
        near = 0.1 * span if low * high > 0 else 0.0
        panel.set_xlim(low - (0.45 * span if low < 0 else near), high + (0.45 * span if high > 0 else near))
        panel.locator_params(axis="x", nbins=4)
        panel.ticklabel_format(axis="x", scilimits=(-3, 4))
    panel.set_xlabel(textwrap.fill(better(column).split(" (")[0], 40), fontsize=7)
    for i, (value, error) in enumerate(zip(values, errors, strict=True)):
        write_number(panel, i, value, error, (low, high), column in rows[i])


def write_number(panel: "Axes", i: int, value: float, error: float, bounds: tuple[float, float], measured: bool) -> None:
    """The text of row i: its number at the end of its bar, or at the edge that the bar goes beyond, behind an arrow."""
    low, high = bounds
    if math.isnan(value):
        if measured:
            panel.annotate(" no number", (0, i), xycoords=("axes fraction", "data"), va="center", fontsize=TINY, color=RED)
        return
    if low <= value <= high or (0 < value < low):
        half = 0.0 if math.isnan(error) else error
        end, side = (value - half, "right") if value < 0 else (min(max(value + half, low), 1.1 * high), "left")
        place, where, shift, colour, edge = (end, i), "data", (-5 if value < 0 else 5, 0), "black", "none"
        text = cell(value)
    else:
        above = value > high
        place, where, shift, colour, edge = (0.99 if above else 0.01, i), "axes fraction", (0, 0), RED, RED
        text, side = (f"{cell(value)} ►", "right") if above else (f"◄ {cell(value)}", "left")
    panel.annotate(
        text,
        place,
        xycoords="data" if where == "data" else ("axes fraction", "data"),
        xytext=shift,
        textcoords="offset points",
        ha=side,
        va="center",
        fontsize=TINY,
        color=colour,
        bbox={"boxstyle": "square,pad=0.1", "facecolor": "white", "edgecolor": edge, "alpha": 0.8},
    )


def limits(values: Sequence[float]) -> tuple[float, float, bool]:
    """The least and the largest number that an axis of bars shows, and whether it is a log scale.

    From 0 unless they are near each other. Of the largest numbers, up to a third are left out where the least of them is
    more than 100 times (of three numbers or two: a million times) the next.
    """
    sizes = sorted(abs(value) for value in values if math.isfinite(value))
    factor = OUTLIER if len(sizes) > 3 else 1e6
    for cut in range(min(max(1, len(sizes) // 3), len(sizes) - 1), 0, -1):
        if sizes[-cut] > factor * sizes[-cut - 1] > 0:
            sizes = sizes[:-cut]
            break
    most = sizes[-1] if sizes else 1.0
    kept = [value for value in values if abs(value) <= most]
    positive = [value for value in kept if value > 0]
    if positive and min(kept) >= 0 and max(positive) > SPAN * min(positive):
        return max(min(positive), most / 1e6) / 3, most, True
    least, largest = min(kept, default=0.0), max(kept, default=0.0)
    if least < largest and least * largest > 0 and largest - least < NEAR * most:
        return least, largest, False
    return min(0.0, least), max(0.0, largest) or float(least >= 0), False


def first_samples(run_dir: Path) -> "Image.Image | None":
    """The first samples in the newest grid that the run drew while training, side by side; None where it drew none.

    Of points, their cloud.
    """
    grids = sorted((run_dir / "samples").glob("step_*.png"))
    if not grids:
        return None
    from PIL import Image

    from heatgen.picture import is_points  # and PyTorch

    info = read_info(run_dir)
    columns = math.ceil(math.sqrt(info.pictured))
    count = math.ceil(info.pictured / columns)  # of rows
    with Image.open(grids[-1]) as image:
        sheet = image.convert("RGB")
    if is_points(info.shape):
        return sheet.resize((SIDE, SIDE), Image.Resampling.BOX)
    lines = min(count, math.ceil(SAMPLES / columns))
    row = Image.new("RGB", (sheet.width * min(SAMPLES, info.pictured) // columns, sheet.height // count))
    for i in range(lines):
        row.paste(sheet.crop((0, i * sheet.height // count, sheet.width, sheet.height)), (i * sheet.width, 0))
    return row
