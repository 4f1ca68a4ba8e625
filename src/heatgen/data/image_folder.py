"""data=image_folder: any folder of images, however deep. AFHQ, FFHQ and LSUN church are presets of it."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from tqdm import tqdm

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.images import ImageSet, Pixels, hold_out
from heatgen.data.module import DataModule, DataSettings
from heatgen.noise import generator

EXTENSIONS = {".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
VALIDATION_NAMES = ("val", "valid", "validation")


def find_images(folder: Path) -> list[Path]:
    """All image files under a folder, sorted. ConfigError if there is no such folder or no image in it."""
    if not folder.is_dir():
        raise ConfigError(f"data.path = {folder} is not a folder; give the folder that holds the images.")
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in EXTENSIONS)
    if not paths:
        raise ConfigError(f"data.path = {folder} holds no image ({', '.join(sorted(EXTENSIONS))}); give another folder.")
    return paths


def upright_bytes(image: Image.Image) -> Image.Image:
    """An image turned as its camera says, with 16-bit grey scaled to bytes (where Pillow alone would clip it)."""
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) / 257).round().astype(np.uint8))
    return image


class ImageFiles:
    """Images read from files when they are needed, resized and cropped to (C, H, W); ConfigError names a broken file.

    Args:
        paths: the files.
        shape: (C, H, W).
        resize: shorter, scale the shorter side to `size` pixels and crop; stretch, scale each side to H and W; none, only
            crop.
        crop: centre | random (training only; seeded by position).
        size: of the shorter side, in pixels.
    """

    labels = None

    def __init__(self, paths: Sequence[Path], shape: tuple[int, ...], resize: str, crop: str, size: int):
        self.paths, self.shape, self.resize, self.crop, self.size = paths, shape, resize, crop, size

    def __len__(self) -> int:
        return len(self.paths)

    def pixels(self, indices: Sequence[int], keys: Sequence[int] | None = None) -> Tensor:
        random_keys = keys if keys is not None and self.crop == "random" else [None] * len(indices)
        return torch.stack([self._read(self.paths[i], key) for i, key in zip(indices, random_keys, strict=True)])

    def fingerprint(self) -> str:
        facts = [(str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in self.paths]
        settings = (self.shape, self.resize, self.size)
        return hashlib.blake2b(repr((facts, settings)).encode(), digest_size=12).hexdigest()

    def _read(self, path: Path, key: int | None) -> Tensor:
        try:
            with Image.open(path) as file:
                image = self._resized(upright_bytes(file).convert("L" if self.shape[0] == 1 else "RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            raise ConfigError(f"{path} is not a complete image ({error}); repair or remove it.") from error
        height, width = self.shape[1:]
        spare_y, spare_x = image.height - height, image.width - width
        if min(spare_y, spare_x) < 0:
            raise ConfigError(f"{path} is smaller than data.shape = {list(self.shape)}; use data.resize=shorter.")
        top, left = spare_y // 2, spare_x // 2
        if key is not None:
            corner = torch.rand(2, generator=generator(key))
            top, left = int(corner[0] * (spare_y + 1)), int(corner[1] * (spare_x + 1))
        array = np.asarray(image)[top : top + height, left : left + width]
        return torch.from_numpy(array.reshape(height, width, -1).transpose(2, 0, 1).copy())

    def _resized(self, image: Image.Image) -> Image.Image:
        height, width = self.shape[1:]
        if self.resize == "none":
            return image
        if self.resize == "stretch":
            return image.resize((width, height), Image.Resampling.BICUBIC, reducing_gap=3.0)
        scale = max(self.size / min(image.size), height / image.height, width / image.width)
        target = (max(width, round(image.width * scale)), max(height, round(image.height * scale)))
        return image if target == image.size else image.resize(target, Image.Resampling.BICUBIC, reducing_gap=3.0)


class ImageFolder(DataModule):
    """Images under `path`, resized and cropped to shape = [1 or 3, H, W].

    Splits: sub-folders train, val and test where they exist; a missing one is held out of the training images at random.

    Args:
        path: the folder.
        val_fraction, test_fraction: of the training images, for a split without a folder.
        resize: shorter | stretch | none, see `ImageFiles`.
        resize_to: the shorter side before the crop, in pixels; None: just enough.
        crop: centre | random.
        cache_limit: MiB; images are kept in memory, as bytes, if they take at most that and crops are not random.
        settings: those of `DataModule`.
    Raises:
        ConfigError: for a missing or empty folder or a broken file, by name.
    """

    def __init__(
        self,
        path: str,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        resize: str = "shorter",
        resize_to: int | None = None,
        crop: str = "centre",
        cache_limit: float = 2048,
        **settings: Unpack[DataSettings],
    ):
        super().__init__(**settings)
        if len(self.spec.shape) != 3 or self.spec.shape[0] not in (1, 3):
            raise ConfigError(f"data.shape must be [1 or 3, height, width], not {list(self.spec.shape)}.")
        if not path:
            raise ConfigError("data.path is not given; write data.path=FOLDER, the folder that holds the images.")
        self.path = Path(path)
        self.fractions = {
            "val": check.number("data.val_fraction", val_fraction, above=0, maximum=0.5),
            "test": check.number("data.test_fraction", test_fraction, above=0, maximum=0.5),
        }
        self.resize = check.choice("data.resize", resize, ("shorter", "stretch", "none"))
        self.crop = check.choice("data.crop", crop, ("centre", "random"))
        shorter = min(self.spec.shape[1:])
        self.size = shorter if resize_to is None else check.integer("data.resize_to", resize_to, minimum=shorter)
        self.cache_limit = check.number("data.cache_limit", cache_limit, minimum=0) * 2**20

    def _folder(self, split: str) -> Path | None:
        names = VALIDATION_NAMES if split == "val" else (split,)
        return next((self.path / name for name in names if (self.path / name).is_dir()), None)

    def _files(self, split: str) -> ImageFiles:
        """The images of a split's own sub-folder; for train without one, all that are in no other split's."""
        others = [folder for name in ("val", "test") if (folder := self._folder(name))]
        paths = find_images(self._folder(split) or self.path)
        if split == "train" and not self._folder("train"):
            paths = [path for path in paths if not any(path.is_relative_to(folder) for folder in others)]
        if not paths:
            raise ConfigError(f"data.path = {self.path} holds no training image; put some beside its other folders.")
        return ImageFiles(paths, self.spec.shape, self.resize, self.crop, self.size)

    def read(self, split: str) -> ImageSet:
        if split != "train" and self._folder(split):
            return self._cached(self._files(split), split)
        rest: ImageSet = self._files("train")
        whole = len(rest)
        for part in ("test", "val"):
            if not self._folder(part):
                size = max(1, round(self.fractions[part] * whole))
                rest, held = hold_out(rest, size, f"data.{part}_fraction")
                if part == split:
                    return self._cached(held, split)
        return self._cached(rest, split)

    def _cached(self, images: ImageSet, split: str) -> ImageSet:
        pixels = int(np.prod(self.spec.shape))
        if self.crop == "random" or len(images) * pixels > self.cache_limit:
            return images
        array = torch.empty(len(images), *self.spec.shape, dtype=torch.uint8)
        for i in tqdm(range(len(images)), desc=f"reading {split} images", leave=False):
            array[i] = images.pixels([i])[0]
        return Pixels(array)
