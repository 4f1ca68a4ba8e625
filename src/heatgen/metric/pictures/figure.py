"""matplotlib, drawing into files alone: the one place where it is set up, and where the style of all figures stands.

The colours are those of Okabe and Ito, which people with any kind of colour vision tell apart. A figure is as wide as one
column of a paper or both, where its text has 6 to 8 points.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from PIL import Image

from heatgen.runtime.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SINGLE, DOUBLE = 3.4, 7.0  # inches: the width of a column of a paper, and of both
TINY = 6.0  # points of text within a panel
BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW = ["#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#56B4E9", "#F0E442"]
PALETTE = (BLUE, ORANGE, GREEN, RED, PURPLE, SKY, YELLOW, "#000000")  # C0, C1, ... of every figure
MARKERS = "os^Dv"  # beside the colours, for prints in grey
STYLE: dict[Any, Any] = {
    **dict.fromkeys(("font.size", "axes.titlesize", "axes.labelsize", "figure.titlesize"), 8),
    **dict.fromkeys(("xtick.labelsize", "ytick.labelsize", "legend.fontsize"), 7),
    **dict.fromkeys(("axes.linewidth", "xtick.major.width", "ytick.major.width"), 0.6),
    **{"lines.linewidth": 1.2, "lines.markersize": 3, "errorbar.capsize": 0, "legend.framealpha": 0.7},
    **{"figure.dpi": 110, "savefig.dpi": 160, "image.interpolation": "nearest"},
    **{"pdf.fonttype": 42, "ps.fonttype": 42, "svg.hashsalt": "heatgen"},  # text stays text
}


def plots() -> ModuleType:
    """matplotlib's pyplot; imported late, as it takes a second. What draws with it is decorated with `styled()`.

    Without a screen, unless somebody has chosen another way to draw: a notebook goes on with its own.
    """
    import matplotlib

    if "MPLBACKEND" not in os.environ and "matplotlib.pyplot" not in sys.modules:
        matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


@contextmanager
def styled() -> Iterator[None]:
    """The house's style, of the figures within alone: a notebook keeps its own for the others."""
    from cycler import cycler

    with plots().style.context(STYLE | {"axes.prop_cycle": cycler(color=PALETTE)}, after_reset=True):
        yield


def size(panels: int, height: float = 2.2) -> tuple[float, float]:
    """Of a figure of so many panels side by side, in inches: one alone takes a column, several both."""
    return SINGLE if panels == 1 else DOUBLE, height


@styled()
def as_image(figure: "Figure") -> Image.Image:
    """The figure as a picture; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    plots().close(figure)
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")


@styled()
def save(figure: "Figure", *paths: Path) -> None:
    """Write the figure to files of the kinds that their names say, .png or .pdf, the same bytes every time; it is closed."""
    for path in paths:
        nothing = {"CreationDate": None} if path.suffix == ".pdf" else {"Software": None}
        with atomic_path(path) as beside:
            figure.savefig(beside, format=path.suffix[1:], metadata=nothing)
    plots().close(figure)
