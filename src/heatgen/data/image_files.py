"""Image files: which formats are read, the images in them, and one sentence for whatever is wrong with a file."""

import functools
import hashlib
import itertools
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError, features
from torch import Tensor

from heatgen.check import ConfigError
from heatgen.data.image_decoding import Decoding, decoded, shown
from heatgen.data.lmdb_files import Entry
from heatgen.noise import mix

Made = TypeVar("Made")
Source = Path | Entry  # where an image file is
KINDS = (  # what Pillow decodes by itself; not EPS, PS and WMF, which are drawings, HDF5, GRIB, BUFR and MPEG, which it only
    # knows, nor FITS, whose zero and scale it overlooks
    *("AVIF", "BLP", "BMP", "CUR", "DCX", "DDS", "DIB", "FLI", "FTEX", "GBR", "GIF", "ICNS", "ICO", "IM", "JPEG"),
    *("JPEG2000", "MSP", "PCD", "PCX", "PIXAR", "PNG", "PPM", "PSD", "QOI", "SGI", "SUN", "TGA", "TIFF", "WEBP", "XBM"),
    "XPM",
)
NEEDS = {"AVIF": "avif", "JPEG2000": "jpg_2000", "WEBP": "webp"}  # what Pillow may be built without
SEVERAL = {".apng", ".avif", ".avifs", ".dcx", ".flc", ".fli", ".gif", ".png", ".tif", ".tiff", ".webp"}  # frames or pages


MODES = {1: "L", 3: "RGB"}  # by the number of channels
NARROW = 10_000  # times as long as it is wide, where a picture is refused rather than resized by its shorter side


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
def opened(path: Source) -> Iterator[Image.Image]:
    """An image file that is open. ConfigError names the file, whatever Pillow raises while it is read."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what can be read past
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path.open() if isinstance(path, Entry) else path, formats=kinds()) as image:
                yield image
        except ConfigError:
            raise
        except Exception as error:  # a damaged file can make Pillow raise anything
            raise complaint(path, error) from error


def read_frames(
    path: Source, frames: Sequence[int], decoding: Decoding, finish: Callable[[Image.Image], Made]
) -> list[Made]:
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


def count_frames(path: Source) -> int:
    """How many frames or pages a file has. ConfigError names a file that cannot be read."""
    if path.suffix.lower() not in SEVERAL:
        return 1
    with opened(path) as image:
        return max(1, int(getattr(image, "n_frames", 1)))


def has_frames(path: Source) -> bool:
    """Whether a file has more than one frame or page; False also where it cannot be read, which is said later."""
    try:
        with opened(path) as image:
            return bool(getattr(image, "is_animated", False)) and image.format != "MPO"
    except ConfigError:
        return False


def is_deep(path: Source) -> bool:
    """Whether a file that can be read holds numbers of 16 bits that are scaled by their full range."""
    with opened(path) as image:
        return image.mode == "I" or image.mode.startswith("I;16")


def complaint(path: Source, error: Exception) -> ConfigError:
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


class ImageFiles:
    """Images read from files when they are needed, resized and cropped to (C, H, W); ConfigError names a broken file.

    Args:
        paths: the files, or entries of an LMDB.
        shape: (C, H, W).
        resize: shorter, scale the shorter side to `size` pixels and crop; stretch, scale each side to H and W; none, only
            crop.
        crop: centre | random (training only; seeded by position).
        size: of the shorter side, in pixels.
        decoding: how the numbers of a file become bytes, of mode L where C = 1 and else RGB.
        frames: which frame of each file; None: the first.
    """

    labels = None

    def __init__(
        self,
        paths: Sequence[Source],
        shape: tuple[int, ...],
        resize: str,
        crop: str,
        size: int,
        decoding: Decoding | None = None,
        frames: Sequence[int] | None = None,
    ):
        self.paths, self.shape, self.resize, self.crop, self.size = paths, shape, resize, crop, size
        self.decoding = decoding or Decoding(MODES[shape[0]])
        self.frames = [0] * len(paths) if frames is None else frames

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, indices: Sequence[int], keys: Sequence[int] | None = None) -> Tensor:
        random_keys = keys if keys is not None and self.crop == "random" else [None] * len(indices)
        wanted = [(self.paths[i], self.frames[i], key) for i, key in zip(indices, random_keys, strict=True)]
        images: list[Tensor] = []
        for path, group in itertools.groupby(wanted, key=lambda item: item[0]):
            _, frames, corners = zip(*group, strict=True)
            seeds = iter(corners)
            images += read_frames(path, frames, self.decoding, lambda image: self._fit(path, image, next(seeds)))
        return torch.stack(images)

    def fingerprint(self) -> str:
        try:
            stats = [path.stat() for path in self.paths]
        except OSError as error:
            raise complaint(Path(error.filename), error) from error
        facts = [(str(p), s.st_size, s.st_mtime_ns) for p, s in zip(self.paths, stats, strict=True)]
        settings = (self.shape, self.resize, self.size, self.decoding, list(self.frames))
        return hashlib.blake2b(repr((facts, settings)).encode(errors="surrogatepass"), digest_size=12).hexdigest()

    def _fit(self, path: Source, image: Image.Image, key: int | None) -> Tensor:
        """An image of a file as (C, H, W) bytes."""
        image = self._resized(path, image)
        height, width = self.shape[1:]
        spare_y, spare_x = image.height - height, image.width - width
        if min(spare_y, spare_x) < 0:
            raise ConfigError(f"{shown(path)} is smaller than data.shape = {list(self.shape)}; use data.resize=shorter.")
        top, left = spare_y // 2, spare_x // 2
        if key is not None:
            top, left = mix(key, "top") % (spare_y + 1), mix(key, "left") % (spare_x + 1)
        array = np.asarray(image)[top : top + height, left : left + width]
        return torch.from_numpy(array.reshape(height, width, -1).transpose(2, 0, 1).copy())

    def _resized(self, path: Source, image: Image.Image) -> Image.Image:
        height, width = self.shape[1:]
        if self.resize == "none":
            return image
        if self.resize == "stretch":
            return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        scale = max(self.size / min(image.size), height / image.height, width / image.width)
        target = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
        grown = target[0] * target[1] > max(Image.MAX_IMAGE_PIXELS or 0, image.width * image.height)
        if grown or max(image.size) > NARROW * min(image.size):
            across = f"{image.width}x{image.height} pixels"
            raise ConfigError(f"{shown(path)} has {across}, too narrow for data.resize=shorter; crop or remove it.")
        return image if target == image.size else image.resize(target, Image.Resampling.BICUBIC, reducing_gap=3.0)
