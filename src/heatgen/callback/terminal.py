"""Samples in the terminal while a training goes on: a character is two pixels, one above the other."""

import sys
from itertools import zip_longest
from pathlib import Path

import numpy as np
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm
from PIL import Image
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.text import Text
from torch import Tensor

from heatgen.picture import MARGIN, grid, is_points
from heatgen.runtime.files import shown

SIDE, ROWS = 16, 2  # pixels of a sample at most, and rows of samples
CLOUD = 48  # pixels of the side of a cloud of points
NARROWEST, WIDEST = 40, 100  # characters of a terminal that shows samples, and of what it shows


def show(samples: Tensor, step: int, film: Path, console: Console | None = None) -> bool:
    """Print the first samples (n, C, H, W) in [0, 1] above the progress bar; whether the terminal can show them.

    Where it cannot, as without colours, or where there is none, print where the film of them grows.
    """
    console = console or Console()
    with Tqdm.external_write_mode(sys.stdout):
        if able := can_show(console):
            console.print(half_blocks(sheet(samples, min(console.width, WIDEST) - 1)), end="")
            console.print(f"step {step}", highlight=False)
        else:
            console.print(f"step {step}: {shown(film)}", highlight=False, markup=False, soft_wrap=True)
    return able


def can_show(console: Console) -> bool:
    """Whether pictures can be seen on a console."""
    coloured = console.is_terminal and console.color_system is not None and not console.no_color
    return coloured and console.width >= NARROWEST and console.encoding.startswith("utf")


def sheet(samples: Tensor, width: int) -> Image.Image:
    """As many samples as stand in two rows of so many pixels, the larger ones made smaller; points as a cloud."""
    if is_points(samples.shape[1:]):
        return grid(samples).resize((CLOUD, CLOUD), Image.Resampling.BOX)
    scale = min(1.0, SIDE / max(samples.shape[-2:]))
    high, wide = (max(1, round(scale * size)) for size in samples.shape[-2:])
    across = min(max(1, (width + 1) // (wide + 1)), -(-len(samples) // ROWS))
    count = min(len(samples), ROWS * across)
    output = Image.new("RGB", (across * (wide + 1) - 1, -(-count // across) * (high + 1) - 1))
    for i in range(count):
        tile = grid(samples[i : i + 1])
        tile = tile.crop((MARGIN, MARGIN, tile.width - MARGIN, tile.height - MARGIN))
        place = (i % across * (wide + 1), i // across * (high + 1))
        output.paste(tile.resize((wide, high), Image.Resampling.BOX), place)
    return output


def half_blocks(picture: Image.Image) -> Text:
    """A picture as text: the upper half of each character in the colour of one pixel, on that of the pixel below it."""
    pixels, text = np.asarray(picture.convert("RGB")).tolist(), Text(no_wrap=True)
    for above, below in zip_longest(pixels[::2], pixels[1::2], fillvalue=[[0, 0, 0]] * picture.width):
        for upper, lower in zip(above, below, strict=True):
            text.append("▀", Style(color=Color.from_rgb(*upper), bgcolor=Color.from_rgb(*lower)))
        text.append("\n")
    return text
