"""The figure of a comparison: samples of every run, and a bar for each of its numbers."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from heatgen.report.page import cell
from heatgen.report.rows import Row
from heatgen.report.seeds import error_over_seeds, is_number
from heatgen.runtime.directory import read_info

if TYPE_CHECKING:
    from PIL import Image

SIDE = 64  # pixels of a cloud of points


def draw(
    run_dirs: Sequence[Path | None], rows: Sequence[Row], shown: Sequence[str], headings: Mapping[str, str], path: Path
) -> None:
    """A line for each row: the first samples of its run where any run drew some, then a bar for each number.

    Means over seeds have their standard error at the bar.
    """
    from heatgen.metric.pictures.figure import plots

    plt = plots()
    words = [column for column in shown if not any(is_number(row.get(column)) for row in rows)]
    numbers = [column for column in shown if column not in words and column != "seeds"]
    names = [" ".join(cell(row.get(column)) for column in words).rstrip() for row in rows]
    pictures = [None if run_dir is None else first_samples(run_dir) for run_dir in run_dirs]
    widths = [3.4] * (any(picture is not None for picture in pictures) or not numbers) + [2] * len(numbers)
    figure, axes = plt.subplots(
        *(1, len(widths)),
        figsize=(2.2 + sum(widths) * 1.1, 0.62 * len(rows) + 0.8),
        width_ratios=widths,
        layout="constrained",
        squeeze=False,
        sharey=True,
    )
    axes[0, 0].set(ylim=(len(rows) - 0.5, -0.5), yticks=range(len(rows)), yticklabels=names)
    others = axes[0, len(widths) - len(numbers) :]
    if len(widths) > len(numbers):
        for i, picture in enumerate(pictures):
            if picture is not None:
                axes[0, 0].imshow(picture, extent=(0, 6, i + 0.48, i - 0.48), aspect="auto", interpolation="nearest")
        axes[0, 0].set(xlim=(0, 6), ylim=(len(rows) - 0.5, -0.5), title="samples", xticks=[])
    for panel, column in zip(others, numbers, strict=True):
        values = [value if is_number(value := row.get(column)) else math.nan for row in rows]
        errors = [math.nan if error is None else error for error in (error_over_seeds(row, column) for row in rows)]
        panel.barh(range(len(rows)), values, height=0.6, xerr=None if all(map(math.isnan, errors)) else errors)
        panel.set_title(headings.get(column, column), fontsize=9)
        panel.locator_params(axis="x", nbins=4)
        panel.ticklabel_format(axis="x", scilimits=(-3, 4))
        positive = [value for value in values if value > 0 and math.isfinite(value)]
        if positive and max(positive) > 100 * min(positive):
            panel.set_xscale("log")
        for i, (value, error) in enumerate(zip(values, errors, strict=True)):
            if math.isfinite(value):
                end = value if math.isnan(error) else value + error
                panel.annotate(f" {cell(value)}", (end, i), va="center", fontsize=7)
        panel.margins(x=0.35)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def first_samples(run_dir: Path) -> "Image.Image | None":
    """The first row of the newest grid of samples that the run drew while training; None where it drew none.

    Of points, their cloud, at the left of a sheet as wide as that of a row of images.
    """
    from PIL import Image, ImageOps

    from heatgen.picture import PAPER, is_points

    grids = sorted((run_dir / "samples").glob("step_*.png"))
    if not grids:
        return None
    info = read_info(run_dir)
    rows = math.ceil(info.pictured / math.ceil(math.sqrt(info.pictured)))
    with Image.open(grids[-1]) as image:
        if is_points(info.shape):
            thumbnail = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
            return ImageOps.pad(thumbnail, (6 * SIDE, SIDE), color=PAPER, centering=(0, 0))
        return image.convert("RGB").crop((0, 0, image.width, image.height // rows + 1))
