"""Image files: which formats are read, their frames, and one sentence for whatever is wrong with a file."""

import functools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from PIL import Image, UnidentifiedImageError, features

from heatgen.check import ConfigError
from heatgen.data.image_decoding import Decoding, decoded, shown

Made = TypeVar("Made")
KINDS = (  # what Pillow decodes by itself; not EPS, PS and WMF, which are drawings, HDF5, GRIB, BUFR and MPEG, which it only
    # knows, nor FITS, whose zero and scale it overlooks
    *("AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FLI", "FTEX", "GBR", "GIF", "ICNS", "ICO", "IM", "JPEG"),
    *("JPEG2000", "MSP", "PCD", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM"),
    "XPM",
)
NEEDS = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}  # what Pillow may be built without
SEVERAL = {".apng", ".avif", ".avifs", ".dcx", ".flc", ".fli", ".gif", ".png", ".tif", ".tiff", ".webp"}  # frames or pages


@functools.cache
def kinds() -> tuple[str, ...]:
    """The names of the formats that this Pillow can read, in its own order."""
    Image.init()
    return tuple(kind for kind in Image.ID if kind in KINDS and (kind not in NEEDS or features.check(NEEDS[kind])))


@functools.cache
def suffixes() -> frozenset[str]:
    """The suffixes of those formats, in lower case, such as ".png"."""
    known, read = Image.registered_extensions(), {*kinds(), "MPO"}  # MPO: two JPEG in one file
    return frozenset(suffix.lower() for suffix, kind in known.items() if kind in read)


@contextmanager
def opened(path: Path) -> Iterator[Image.Image]:
    """An image file that is open. ConfigError names the file, whatever Pillow raises while it is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what can be read past
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=kinds()) as image:
                yield image
        except ConfigError:
            raise
        except Exception as error:  # a damaged file can make Pillow raise anything
            raise complaint(path, error) from error


def read_frames(path: Path, frames: Sequence[int], decoding: Decoding, finish: Callable[[Image.Image], Made]) -> list[Made]:
    """What `finish` makes of some frames of a file, each upright and of mode `decoding.mode`.

    Args:
        path: the file.
        frames: which ones, from 0; fastest in ascending order.
        decoding: how numbers become bytes.
        finish: called with each frame; what it raises is the file's fault too.
    Raises:
        ConfigError: names the file.
    """
    made = []
    with opened(path) as image:
        for frame in frames:
            if frame != image.tell():
                image.seek(frame)
            made.append(finish(decoded(path, image, decoding)))
    return made


def count_frames(path: Path) -> int:
    """How many frames or pages a file has. ConfigError names a file that cannot be read."""
    if path.suffix.lower() not in SEVERAL:
        return 1
    with opened(path) as image:
        return max(1, int(getattr(image, "n_frames", 1)))


def has_frames(path: Path) -> bool:
    """Whether a file has more than one frame or page; False also where it cannot be read, which is said later."""
    try:
        with opened(path) as image:
            return bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    except ConfigError:
        return False


def complaint(path: Path, error: Exception) -> ConfigError:
    """One sentence for what went wrong with a file."""
    name = shown(path)
    if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
        pixels, limit = re.search(r"\d+", str(error)), Image.MAX_IMAGE_PIXELS or 0
        many = f"{int(pixels[0]):,}" if pixels else "too many"
        return ConfigError(f"{name} unpacks to {many} pixels, more than the {limit:,} that are read; shrink or remove it.")
    if isinstance(error, FileNotFoundError):
        return ConfigError(f"{name} is not there any longer; put it back, or start again without it.")
    if isinstance(error, OSError) and error.errno is not None and error.strerror:
        return ConfigError(f"{name} cannot be read ({error.strerror}); make it readable, or remove it.")
    known = not isinstance(error, UnidentifiedImageError)
    reason = shown(" ".join(str(error).split())) if known else "its format is not known"
    return ConfigError(f"{name} is not a complete image ({reason or type(error).__name__}); repair or remove it.")
