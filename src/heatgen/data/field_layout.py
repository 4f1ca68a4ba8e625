"""What an HDF5 file holds, and one sentence that names the cause where it is not fields of N x N numbers.

Every cure is for the user's own numbers: none replaces them by others.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np

from heatgen.check import ConfigError

WANTED = "a dataset `fields` of shape (count, N, N), float32 or float64"
DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
LISTED = 6  # things of a file that a sentence names
SIGNATURE = b"\x89HDF\r\n\x1a\n"


class Layout(NamedTuple):
    """How many fields a file holds, and the names of their datasets in the published layout."""

    size: int
    names: list[str] | None


def in_words(error: BaseException) -> str:
    """The message of an error of h5py, on one line and without a full stop."""
    return re.sub(r"\s+", " ", str(error)).strip().rstrip(".") or type(error).__name__


def open_file(path: Path) -> h5py.File:
    """The file, for reading. ConfigError where it is missing, locked, cut short, damaged or of another kind."""
    if not path.is_file():
        raise ConfigError(f"{path} does not exist or is no file; put it there: {WANTED}.")
    try:
        return h5py.File(path, "r")
    except DAMAGE as error:
        raise ConfigError(f"{path} {why_closed(path, in_words(error), error)}.") from error


def why_closed(path: Path, words: str, error: BaseException) -> str:
    """Why a file cannot be opened, and what to do."""
    if "lock file" in words or "already open for" in words:
        return (
            "is open in a program that writes it; close it there (h5clear -s after a crash of the writer), or set "
            "HDF5_USE_FILE_LOCKING=FALSE to read it as it stands"
        )
    if isinstance(error, PermissionError):
        return "may not be read by you; change its permissions (chmod +r)"
    try:
        with path.open("rb") as file:
            start, size = file.read(8), path.stat().st_size
    except OSError as trouble:
        return f"cannot be read ({trouble.strerror}); copy it to another disk"
    if not size:
        return "is not a complete HDF5 file: it is empty (0 bytes); copy or write it again"
    if "truncated" in words:
        return f"is not a complete HDF5 file: it is cut short at {size} bytes ({words}); copy or write it again"
    if start != SIGNATURE:
        return f"is not an HDF5 file: it starts with {start!r}; convert it to HDF5 with {WANTED}"
    return f"is not a complete HDF5 file: it is damaged ({words}); copy or write it again"


def find_layout(file: h5py.File, path: Path, resolution: int) -> Layout:
    """The layout of a file of fields. ConfigError says what is there where it is neither of the two."""
    if "fields" in names_of(file):
        fields = item_of(file, "fields")
        if not isinstance(fields, h5py.Dataset):
            raise ConfigError(f"{path} holds {describe(file, 'fields')} and needs {WANTED}{offer(file)}.")
        check_numbers(path, "fields", fields)
        shape = fields.shape
        if len(shape) != 3 or shape[0] < 1 or shape[1] != shape[2]:
            raise ConfigError(f"{path} does not hold square fields: {describe(file, 'fields')}; {cure(shape)}.")
        check_resolution(path, shape[1], resolution)
        check_stored(path, "fields", fields)
        return Layout(shape[0], None)
    names = sorted(names_of(file))
    first = item_of(file, names[0]) if names and all(name.isdecimal() for name in names) else None
    if not isinstance(first, h5py.Dataset):
        raise ConfigError(
            f"{path} holds neither a dataset `fields` nor one numbered dataset a field, but {listing(file)}; heatgen reads "
            f"{WANTED}{offer(file)}."
        )
    check_numbers(path, names[0], first)
    if len(first.shape) != 2 or first.shape[0] != first.shape[1] or not first.shape[0]:
        raise ConfigError(
            f"{path} does not hold square fields: {describe(file, names[0])}; numbered datasets are (N, N) each, or give "
            f"{WANTED}."
        )
    check_resolution(path, first.shape[0], resolution)
    return Layout(len(names), names)


def check_numbers(path: Path, name: str, dataset: h5py.Dataset) -> None:
    """ConfigError unless the dataset has a shape and holds floating-point numbers."""
    what = f"{path} does not hold square fields of floating-point numbers: `{name}`"
    if dataset.shape is None:
        raise ConfigError(f"{what} is a null dataspace, without any numbers; write it again as {WANTED}.")
    if dataset.dtype.kind in "iub":
        raise ConfigError(f"{what} is {dataset.dtype}; convert it once, with .astype('float64').")
    if dataset.dtype.kind == "c":
        raise ConfigError(f"{what} is {dataset.dtype}; store the real part (or the parts as fields of their own).")
    if dataset.dtype.kind != "f":
        raise ConfigError(f"{what} is of dtype {short(dataset.dtype)}; store plain numbers, {WANTED}.")


def check_resolution(path: Path, found: int, resolution: int) -> None:
    """ConfigError unless fields are as large as the config says."""
    if found != resolution:
        raise ConfigError(
            f"{path} holds fields of {found}x{found} and data.resolution is {resolution}; "
            f"use data.resolution={found} or another data.path."
        )


def check_stored(path: Path, name: str, dataset: h5py.Dataset) -> None:
    """ConfigError where a dataset claims more numbers than the file holds, or keeps them in other files."""
    if dataset.is_virtual or dataset.external:
        raise ConfigError(f"{path}: `{name}` keeps its numbers in other files; write a copy that holds them (h5repack).")
    if dataset.chunks is None:
        whole = dataset.id.get_storage_size() >= dataset.size * dataset.dtype.itemsize
    else:
        chunks = zip(dataset.shape, dataset.chunks, strict=True)
        wanted = int(np.prod([-(-size // chunk) for size, chunk in chunks], dtype=object))
        whole = dataset.id.get_num_chunks() >= wanted
    if not whole:
        size = f"{dataset.size * dataset.dtype.itemsize:.3g}"
        raise ConfigError(
            f"{path}: `{name}` claims {dataset.shape[0]} fields ({size} bytes), and not all of them were written "
            f"(the file has {path.stat().st_size} bytes); write it again, as long as what it holds."
        )


# what is there ------------------------------------------------------------------------------------------------------------


def names_of(group: h5py.Group) -> list[str]:
    """The names in a group; none where it cannot be read."""
    try:
        return [str(name) for name in group]
    except DAMAGE:
        return []


def item_of(group: h5py.Group, name: str) -> h5py.Dataset | h5py.Group | None:
    """What a name stands for; None for a link that leads nowhere."""
    try:
        item = group[name]
        if isinstance(item, h5py.Dataset):
            assert item.dtype is not None and (item.shape is None or len(item.shape) >= 0)
    except DAMAGE:
        return None
    return item if isinstance(item, (h5py.Dataset, h5py.Group)) else None


def short(dtype: np.dtype) -> str:
    """A dtype in a few words."""
    words = str(dtype)
    return words if len(words) < 60 else f"{words[:57]}..."


def describe(group: h5py.Group, name: str) -> str:
    """One thing of a file: its name, shape and kind of number, or what else it is."""
    item = item_of(group, name)
    if isinstance(item, h5py.Group):
        return f"`{name}` (a group)"
    if item is not None:
        return f"`{name}` {'without a shape' if item.shape is None else item.shape} {short(item.dtype)}"
    try:
        link = group.get(name, getlink=True)
    except DAMAGE:
        link = None
    where = getattr(link, "path", None)
    if where is None:
        return f"`{name}` (damaged)"
    return f"`{name}` (a link to {where} {f'in {link.filename} ' if hasattr(link, 'filename') else ''}that leads nowhere)"


def listing(file: h5py.File) -> str:
    """What a file holds, in words."""
    names = names_of(file)
    words = [describe(file, name) for name in names[:LISTED]]
    more = [f"{len(names) - LISTED} more"] if len(names) > LISTED else []
    return ", ".join([*words, *more]) or "nothing"


def candidates(file: h5py.File) -> Iterator[str]:
    """Paths of datasets of square floating-point fields, at the root or in its groups."""
    for name in names_of(file)[:100]:
        item = item_of(file, name)
        inside = [f"{name}/{key}" for key in names_of(item)[:100]] if isinstance(item, h5py.Group) else [name]
        for path in inside:
            found = item_of(file, path)
            shape: tuple[int, ...] = ()
            if isinstance(found, h5py.Dataset) and found.dtype.kind == "f":
                shape = found.shape or ()
            if len(shape) == 3 and shape[1] == shape[2]:
                yield path


def offer(file: h5py.File) -> str:
    """The words that turn a dataset that fits into `fields`; "" where there is none or more than one."""
    found = list(candidates(file))
    return f"; rename it: h5py.File(FILE, 'r+').move({found[0]!r}, 'fields')" if len(found) == 1 else ""


def cure(shape: tuple[int, ...]) -> str:
    """What to do with a dataset `fields` of another shape."""
    if 0 in shape:
        return f"it is empty; {WANTED} is needed, with at least one field"
    if len(shape) == 4 and 1 in (shape[1], shape[3]) and shape[2] in (shape[1], shape[3]):
        return f"store {'fields[:, 0]' if shape[1] == 1 else 'fields[..., 0]'} instead, (count, N, N)"
    if len(shape) == 3:
        return "height and width must be equal, (count, N, N): cut them or interpolate"
    if len(shape) == 2 and shape[0] == shape[1]:
        return "store fields[None] for a single field, (count, N, N)"
    return f"heatgen reads {WANTED}"


# attributes ---------------------------------------------------------------------------------------------------------------


def number_of(file: h5py.File, key: str) -> tuple[float | None, str]:
    """An attribute as a finite number, None where it is none or not there; and what is there instead, in words.

    Numbers, arrays of one number, and texts of a number are taken.
    """
    try:
        if key not in file.attrs:
            return None, ""
        value = file.attrs[key]
        if isinstance(value, np.ndarray) and value.size == 1:
            value = value.item()
        if isinstance(value, (str, bytes, int, float, np.number)) and not isinstance(value, (np.complexfloating, bool)):
            found = float(value)
            return (found, "") if np.isfinite(found) else (None, f"{found}, which is not finite")
        shape = getattr(value, "shape", None)
        words = f"an array of shape {shape}" if isinstance(value, np.ndarray) else f"of type {type(value).__name__}"
        return None, f"{words}, not a number"
    except DAMAGE:
        return None, "not a number"
