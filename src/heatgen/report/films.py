"""The pictures and films of a run as data: URIs, small enough for a page; nothing but PNG and GIF is decoded."""

import base64
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from heatgen.report.rows import damaged

if TYPE_CHECKING:
    from PIL import Image

LARGEST = 2**26  # bytes of a picture, and its pixels
PLAIN = 200_000  # bytes of a picture that goes into the page as it is
FRAMES, SIDE = 61, 480  # of a film
MILLISECONDS, HOLD = 60, 25  # as `picture.save_gif` has them
EVERY = 50  # states of a way back that `picture.Film` shows, about


@dataclass(frozen=True)
class Film:
    """The frames of a film in one picture, `columns` a row.

    Args:
        source: the picture, a data: URI.
        width: of a frame in pixels.
        height: of it.
        columns: frames in a row.
        labels: of each frame, for people.
    """

    source: str
    width: int
    height: int
    columns: int
    labels: Sequence[str]


def opened(path: Path) -> "Image.Image":
    """A picture or film that is of a sane size. OSError or ValueError otherwise."""
    from PIL import Image

    if not path.is_file():  # a pipe would never end
        raise OSError("it is no file")
    if path.stat().st_size > LARGEST:
        raise ValueError(f"it has {path.stat().st_size} bytes")
    image = Image.open(io.BytesIO(path.read_bytes()), formats=("PNG", "GIF"))
    if image.width * image.height > LARGEST:
        raise ValueError(f"it has {image.width} x {image.height} pixels")
    return image


def encoded(image: "Image.Image", quality: int = 85) -> str:
    """A picture as a data: URI."""
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=quality, method=2)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def still(path: Path, side: int = 1600) -> str:
    """A picture as a data: URI, no side longer than `side`. ConfigError where it is damaged."""
    try:
        with opened(path) as image:
            image.load()
            if max(image.size) <= side and path.stat().st_size <= PLAIN and image.format == "PNG":
                return f"data:image/png;base64,{base64.b64encode(path.read_bytes()).decode()}"
            small = image.convert("RGB")
            small.thumbnail((side, side))
            return encoded(small)
    except Exception as error:  # a stranger's bytes can make Pillow raise anything
        raise damaged(path, error) from error


def film(path: Path, steps: int = 0, levels: bool = False) -> Film:
    """A GIF of a way back, its frames named by what is left of it.

    Args:
        path: the GIF.
        steps: how many steps the way has; 0: not known, or no way back.
        levels: whether they are the levels of the map.

    Raises:
        ConfigError: it is damaged.
    """
    try:
        with opened(path) as image:
            count: int = getattr(image, "n_frames", 1)
            frames, places, length = {}, [], 0
            for i in range(count):
                image.seek(i)
                if count <= FRAMES or (i * (FRAMES - 1)) % (count - 1) < FRAMES - 1:
                    frames[i] = image.convert("RGB")
                    frames[i].thumbnail((SIDE, SIDE))
                places.append(length)
                length += round(image.info.get("duration", MILLISECONDS) / MILLISECONDS)
            names = labels(places, length - HOLD, steps, levels)
            kept = list(frames.values())
            return Film(sheet(kept), *kept[0].size, across(kept), [names[i] for i in frames])
    except Exception as error:  # as above
        raise damaged(path, error) from error


def across(frames: "Sequence[Image.Image]") -> int:
    """How many frames stand in a row of their sheet."""
    return math.ceil(math.sqrt(len(frames)))


def sheet(frames: "Sequence[Image.Image]") -> str:
    """All frames in one picture."""
    from PIL import Image

    (width, height), columns = frames[0].size, across(frames)
    whole = Image.new("RGB", (columns * width, -(-len(frames) // columns) * height))
    for i, frame in enumerate(frames):
        whole.paste(frame, (i % columns * width, i // columns * height))
    return encoded(whole)


def labels(places: Sequence[int], length: int, steps: int, levels: bool) -> list[str]:
    """What each frame shows, by its place among `length` of them: equal states stand for one frame in a GIF.

    A film of N steps has the first state, and those at the multiples of ceil(N / 50) below N.
    """
    every = max(1, math.ceil(steps / EVERY))
    if not steps or length != 1 + math.ceil(steps / every):
        return [f"frame {i + 1} of {len(places)}" for i in range(len(places))]
    left = [steps, *range((length - 2) * every, -1, -every)]
    return [f"level {left[i]} of {steps}" if levels else f"{left[i]} of {steps} steps left" for i in places]
