"""The figure of a comparison: samples of every run, and a bar for each of its numbers."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from heatgen.report.seeds import error_over_seeds
from heatgen.runtime.directory import read_settings

SIDE = 64  # pixels of a cloud of points


def cell(value: Any) -> str:
    """A number of four figures, or a word."""
    return f"{value:.4g}" if isinstance(value, (int, float)) else "" if value is None else str(value)


def with_error(row: dict[str, Any], key: str) -> str:
    """A cell of a row: a word, a number, or a mean with its standard error over seeds (how many, if some lack it)."""
    error = error_over_seeds(row, key)
    text = cell(row.get(key)) if error is None else f"{row[key]:.5g} ± {error:.2g}"
    return f"{text} (seeds: {row[f'{key} seeds']})" if f"{key} seeds" in row else text


def draw(runs: Sequence[Path | None], rows: Sequence[dict[str, Any]], shown: Sequence[str], path: Path) -> None:
    """A line for each row: the first samples of its run where any run drew some, then a bar for each number.

    Means over seeds have their standard error at the bar.
    """
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    words = [key for key in shown if all(not isinstance(row.get(key), (int, float)) for row in rows)]
    numbers = [key for key in shown if key not in words and key != "seeds"]
    names = [" ".join(cell(row.get(key)) for key in words).rstrip() for row in rows]
    pictures = [None if run is None else first_samples(run) for run in runs]
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
    for panel, key in zip(others, numbers, strict=True):
        values = [row[key] if isinstance(row.get(key), (int, float)) else math.nan for row in rows]
        errors = [math.nan if error is None else error for error in (error_over_seeds(row, key) for row in rows)]
        panel.barh(range(len(rows)), values, height=0.6, xerr=None if all(map(math.isnan, errors)) else errors)
        panel.set_title(key, fontsize=9)
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


def first_samples(run: Path) -> Any:
    """The first row of the newest grid of samples that the run drew while training; None where it drew none.

    Of points, their cloud, at the left of a sheet as wide as that of a row of images.
    """
    from PIL import Image, ImageOps

    from heatgen.picture import PAPER, is_points

    grids = sorted((run / "samples").glob("step_*.png"))
    if not grids:
        return None
    config = read_settings(run)
    count = ((config.get("callback") or {}).get("pictures") or {}).get("n", 36)
    rows = math.ceil(count / math.ceil(math.sqrt(count)))
    with Image.open(grids[-1]) as image:
        if is_points(config.get("data", {}).get("shape", ())):
            thumbnail = image.convert("RGB").resize((SIDE, SIDE), Image.Resampling.BOX)
            return ImageOps.pad(thumbnail, (6 * SIDE, SIDE), color=PAPER, centering=(0, 0))
        return image.convert("RGB").crop((0, 0, image.width, image.height // rows + 1))
