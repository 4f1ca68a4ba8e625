"""data=memory: what `heatgen.train` was given in Python, as a packed file in the run's folder.

A tensor, an array, a torch Dataset of images or (image, label), or a mapping of splits to any of them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import SupportsInt, TypeGuard, cast

import numpy as np
import torch
from numpy.typing import DTypeLike
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data import packed_file
from heatgen.data.image_search import split_named
from heatgen.data.images import Pixels, Subset, held_out
from heatgen.data.module import SPLITS

HELD_OUT = 0.1  # of the samples, for each split that is not given
RANGES = ((0.0, 1.0), (-1.0, 1.0))  # which numbers are taken to be of, the first that holds them all
IMAGES = "(N, C, H, W) or (N, H, W)"
LAYOUTS = "(N, C, H, W), (N, H, W) or, for points, (N, d)"


def taken(data: object, name: str = "data") -> dict[str, Pixels]:
    """Data in memory as three splits; those that are not given are held out of the training samples, a tenth each.

    Args:
        data: bytes (uint8, or whole numbers from 0 to 255) or floats of shape (N, C, H, W), (N, H, W) or, for points,
            (N, d), a tensor or an array; a Dataset; or a mapping with the key train, and val and test where they are.
        name: what a user calls it.
    Raises:
        ConfigError: names the data and what to do about them.
    """
    if not isinstance(data, Mapping):
        return completed({"train": images_of(data, name)}, name)
    found: dict[str, Pixels] = {}
    for key, part in data.items():
        split = split_named(str(key))
        if split is None or split in found:
            keys = ", ".join(map(str, data))
            raise ConfigError(f"{name} has the keys {keys}; name its splits train, val and test.")
        found[split] = images_of(part, f"{name}[{str(key)!r}]")
    if "train" not in found:
        raise ConfigError(f"{name} has no split train; give one.")
    kinds = sorted({f"{list(images.array.shape[1:])} {in_words(images.array)}" for images in found.values()})
    if len(kinds) > 1:
        raise ConfigError(f"{name} holds samples of {' and '.join(kinds)}; give all splits one shape and one type.")
    return completed(found, name)


def completed(found: dict[str, Pixels], name: str) -> dict[str, Pixels]:
    """All splits, those that are missing held out of the training samples."""
    missing = [split for split in ("test", "val") if split not in found]
    whole = len(found["train"])
    if whole <= len(missing):
        count = f"{whole} sample{'' if whole == 1 else 's'}"
        raise ConfigError(f"{name} holds {count}, and {' and '.join(missing) or 'train'} need one each; give more.")
    size = max(1, round(HELD_OUT * whole))
    for split in missing:
        train = found["train"]
        found["train"], found[split] = (picked(train, part) for part in held_out(len(train), size, name))
    return {split: found[split] for split in SPLITS}


def picked(images: Pixels, indices: Sequence[int]) -> Pixels:
    """Some samples of a set, in memory."""
    part = Subset(images, indices)
    return Pixels(part.pixels(range(len(part))), part.labels)


def images_of(data: object, name: str) -> Pixels:
    """A tensor, an array or a Dataset as samples (N, C, H, W), bytes or float32, with classes where it has them."""
    if isinstance(data, (Tensor, np.ndarray)):
        return Pixels(as_stored(numbers(name, data), name))
    if not hasattr(data, "__getitem__") or not hasattr(data, "__len__") or isinstance(data, str):
        raise ConfigError(
            f"{name} is of type {type(data).__name__}; give a tensor, an array, or a Dataset with a length and indices."
        )
    if isinstance(data, tuple) and all(isinstance(part, (Tensor, np.ndarray)) for part in data):
        raise ConfigError(f"{name} is a tuple; give its images alone, or TensorDataset of torch's with images and labels.")
    return from_items(cast("Sequence[object]", data), name)


def from_items(items: Sequence[object], name: str) -> Pixels:
    """A Dataset, or any other sequence, of images, (image, label) or mappings that hold them."""
    if len(items) == 0:
        raise ConfigError(f"{name} is empty; give samples.")
    arrays, labels = list[Tensor](), list[object]()
    for i in tqdm(range(len(items)), f"reading {name}", unit="sample", leave=False, delay=2):
        image, label = parts_of(items[i])
        if image is None:
            kind = type(items[i]).__name__
            raise ConfigError(f"{name}[{i}] is of type {kind}; each must be an image, (image, label) or a mapping of them.")
        arrays.append(channels_first(image, f"{name}[{i}]"))
        labels.append(label)
        if arrays[i].shape != arrays[0].shape or arrays[i].dtype != arrays[0].dtype:
            told = [f"{list(array.shape)} {in_words(array)}" for array in (arrays[0], arrays[i])]
            raise ConfigError(f"{name}[0] is {told[0]} and {name}[{i}] is {told[1]}; give all samples one shape and type.")
    classes = [int(label) for label in labels if is_class(label)]
    return Pixels(as_stored(torch.stack(arrays), name), torch.tensor(classes) if len(classes) == len(arrays) else None)


def parts_of(item: object) -> tuple[object, object]:
    """The image of a sample, None where it has none, and its class."""
    if isinstance(item, Mapping):
        image = next((value for value in item.values() if is_image(value)), None)
        return image, item.get("label")
    if isinstance(item, (tuple, list)) and item:
        return (item[0] if is_image(item[0]) else None), (item[1] if len(item) > 1 else None)
    return (item if is_image(item) else None), None


def is_class(value: object) -> TypeGuard[SupportsInt]:
    """Whether something is the number of a class."""
    return isinstance(value, (int, np.integer)) or (isinstance(value, Tensor) and value.numel() == 1)


def is_image(value: object) -> bool:
    """Whether something is an image, a field or a point."""
    return isinstance(value, Image.Image) or (isinstance(value, (Tensor, np.ndarray)) and 1 <= value.ndim <= 3)


def channels_first(image: object, name: str) -> Tensor:
    """One sample as a tensor; a picture of Pillow's with its channels first."""
    if not isinstance(image, Image.Image):
        return numbers(name, image)
    if image.mode not in ("L", "RGB"):
        raise ConfigError(f"{name} is a picture of mode {image.mode}; make it one of convert('L') or convert('RGB').")
    array = np.array(image)
    return torch.from_numpy(array.transpose(2, 0, 1).copy() if array.ndim == 3 else array)


def numbers(name: str, data: object) -> Tensor:
    """A tensor or an array as a tensor on the CPU. ConfigError for one that holds no real numbers."""
    if isinstance(data, Tensor):
        tensor, real = data.detach().to_dense().cpu(), not (data.is_complex() or data.dtype == torch.bool)
    else:
        array = np.asarray(data)
        tensor, real = torch.empty(0), array.dtype.kind in "iuf"
        if real:
            kind: DTypeLike = "f4" if array.dtype.kind == "f" else "u1" if array.dtype == np.uint8 else "i8"
            with np.errstate(over="ignore"):  # of numbers too large for float32, which are refused
                tensor = torch.from_numpy(np.array(array, kind, order="C"))
    if not real:
        raise ConfigError(f"{name} holds {in_words(data)}, which are no real numbers; give bytes or floats.")
    return tensor


def as_stored(data: Tensor, name: str) -> Tensor:
    """Samples as they are kept, (N, C, H, W): whole numbers as bytes, others as float32."""
    if data.dim() not in (2, 3, 4) or 0 in data.shape[1:]:
        raise ConfigError(f"{name} has the shape {list(data.shape)}; give {LAYOUTS}.")
    if data.dim() == 4 and data.shape[1] > 4 and data.shape[3] in (1, 3, 4):
        raise ConfigError(
            f"{name} has the shape {list(data.shape)}, its channels last; give (N, C, H, W), by transpose(0, 3, 1, 2) of an "
            "array or permute(0, 3, 1, 2) of a tensor."
        )
    if len(data) == 0:
        raise ConfigError(f"{name} is empty; give samples.")
    points, whole = data.dim() == 2, not data.is_floating_point()
    data = data[:, None, None] if points else data[:, None] if data.dim() == 3 else data
    if not whole:
        fix = "repair those samples, or leave them out"
        data = check.finite(f"samples of {name}", data.to(torch.float32), fix).contiguous()
        if not points and are_bytes(data):
            raise ConfigError(f"{name} holds bytes as floats, 0 to 255; give bytes (uint8), or divide by 255.")
        return data
    if points:
        shape = [len(data), data.shape[-1]]
        raise ConfigError(f"{name} has the shape {shape}; give images as {IMAGES}, and points as floats.")
    low, high = int(data.min()), int(data.max())
    if low < 0 or high > 255:
        raise ConfigError(
            f"{name} holds whole numbers from {low} to {high}; give bytes, 0 to 255, or floats ({name}.float())."
        )
    if high <= 1:
        raise ConfigError(f"{name} holds the whole numbers 0 and 1, and white is 255; give 255 times as much, or floats.")
    return data.to(torch.uint8).contiguous()


def are_bytes(data: Tensor) -> bool:
    """Whether floats are whole numbers from 0 to 255, and not all 0 or 1."""
    return bool(data.min() >= 0 and 1 < data.max() <= 255 and (data == data.round()).all())


def range_of(images: Pixels) -> tuple[float, float]:
    """The range of floats that samples seem to be of: [0, 1], [-1, 1], or from the least to the largest."""
    low, high = float(images.array.min()), float(images.array.max())
    wide = next(((a, b) for a, b in RANGES if a <= low and high <= b), (low, high))
    return wide if wide[0] < wide[1] else (low - 0.5, low + 0.5)


def write(path: Path, splits: Mapping[str, Pixels], source: Mapping[str, object]) -> str:
    """Write the splits as a packed file, whole or not at all; its checksum."""
    train = splits["train"].array
    floats = train.is_floating_point()
    own = {"value_range": list(range_of(splits["train"]))} if floats else {}
    sizes = {split: (len(images), images.labels) for split, images in splits.items()}

    def read(split: str, rows: int) -> Sequence[Tensor]:
        blocks: Sequence[Tensor] = splits[split].array.split(rows)
        return blocks

    return packed_file.write(path, tuple(train.shape[1:]), sizes, read, {**source, **own}, floats=floats)


def as_batch(name: str, fields: object, shape: tuple[int, ...]) -> Tensor:
    """Fields that a user gives a model, (B, C, H, W) float32 on the CPU. ConfigError for anything else, which it names."""
    if not isinstance(fields, (Tensor, np.ndarray)):
        raise ConfigError(
            f"{name} is a {type(fields).__name__}; give a tensor or an array (B, {', '.join(map(str, shape))})."
        )
    found = numbers(name, fields)
    if tuple(found.shape[1:]) != shape or not len(found):
        raise ConfigError(f"{name} has the shape {list(found.shape)}; give (B, {', '.join(map(str, shape))}).")
    if not found.is_floating_point():
        raise ConfigError(f"{name} holds {in_words(found)}; give floats in the range of the data (bytes divided by 255).")
    if are_bytes(found):
        raise ConfigError(f"{name} holds bytes as floats, 0 to 255; give them in the range of the data (divided by 255).")
    return check.finite(f"fields of {name}", found.float(), "repair them, or leave them out")


def in_words(data: object) -> str:
    """The type of the numbers of a tensor or an array."""
    return str(getattr(data, "dtype", type(data).__name__)).removeprefix("torch.")
