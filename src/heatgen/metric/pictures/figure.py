"""matplotlib, drawing into files alone: the one place where it is set up."""

import io
from types import ModuleType
from typing import TYPE_CHECKING

from PIL import Image

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plots() -> ModuleType:
    """matplotlib's pyplot without a screen; imported when it is first needed, as it takes a second."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    return plt


def as_image(figure: "Figure") -> Image.Image:
    """The figure as a picture; it is closed."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plots().close(figure)
    buffer.seek(0)
    return Image.open(buffer).convert("RGB")
