"""HDF5 files of fields of N x N numbers, read and written.

Two layouts. contiguous: one dataset `fields`, (count, N, N) float32 or float64. published: one float64 dataset (N, N) a
field at the root, named 00000, 00001, ... In both the attributes of the file say what it is; mean and std are those of
all its numbers. Files of others need no attributes.
"""

import errno
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from weakref import WeakSet

import h5py
import numpy as np

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.field_layout import DAMAGE, find_layout, in_words, number_of, open_file
from heatgen.data.fields import Moments, evenly, measured
from heatgen.runtime import ranks
from heatgen.runtime.files import atomic_path

log = logging.getLogger("heatgen")
LAYOUTS = ("contiguous", "published")
DTYPES = ("float64", "float32")
LARGEST = 1e150  # of a number, whose square must be one too

Facts = dict[str, float | int | str]  # what a file says of itself: its attributes


class FieldFile:
    """The fields of an HDF5 file of either layout, read when they are needed.

    The file is opened when it is needed, by each process for itself: it is closed before a process forks, and left out of
    pickles. Of its attributes n, resolution, mean and std are read; those that its fields contradict do not count, which a
    note says.

    Args:
        path: the file.
        resolution: N of its fields, (N, N).
    Raises:
        ConfigError: names a file that is missing, locked, truncated, of another kind or of fields of another resolution,
            and what it holds.
    """

    def __init__(self, path: Path, resolution: int):
        self.path, self.resolution = path, resolution
        self._file: h5py.File | None = None
        self.facts: dict[str, float] = {}  # the attributes that are numbers
        self.unreadable: dict[str, str] = {}  # the others, in words
        try:
            layout = find_layout(self.file, path, resolution)
            for key in ("n", "resolution", "mean", "std"):
                value, words = number_of(self.file, key)
                self.facts |= {} if value is None else {key: value}
                self.unreadable |= {key: words} if words else {}
        except DAMAGE as error:
            if isinstance(error, ConfigError):
                raise
            raise ConfigError(f"{path} is damaged ({in_words(error)}); copy or write it again.") from error
        finally:
            self.close()
        self.count, self.names = layout.size, layout.names
        if self.facts.get("resolution", resolution) != resolution:
            self.unreadable["resolution"] = f"{self.facts['resolution']:g}"
        for key in {"resolution", "mean", "std"} & set(self.unreadable):
            self.ignore(key, self.unreadable[key])

    def __len__(self) -> int:
        return self.count

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_file": None}

    @property
    def file(self) -> h5py.File:
        """The file, opened where it is not."""
        if self._file is None:
            self._file = open_file(self.path)
            OPEN.add(self)
        return self._file

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def ignore(self, key: str, words: str) -> None:
        """Say that an attribute does not count."""
        self.facts.pop(key, None)
        if ranks.rank() == 0:
            log.warning("Note: the attribute %s of %s is %s; the fields count.", key, self.path, words)

    def raw(self, indices: Sequence[int]) -> np.ndarray:
        """Some fields, (B, N, N) float64. ConfigError names one that cannot be read, has another shape or is not finite."""
        array = np.empty((len(indices), self.resolution, self.resolution))
        for row, index in enumerate(indices):
            try:
                field = self._field(index)
            except DAMAGE as error:
                if isinstance(error, ConfigError):
                    raise
                what = f"{self.path} cannot be read completely: {self._name(index)}"
                raise ConfigError(f"{what} ({in_words(error)}); copy or write it again.") from error
            if field.shape != array.shape[1:] or field.dtype.kind != "f":
                what = f"{self.path}: {self._name(index)} is {field.shape} {field.dtype}"
                raise ConfigError(f"{what} and others are {array.shape[1:]} floats; write fields of one shape.")
            with np.errstate(over="ignore", invalid="ignore"):
                array[row] = field
        self._check(indices, array)
        return array

    def _check(self, indices: Sequence[int], array: np.ndarray) -> None:
        """ConfigError for fields that are not finite, or too large to be squared."""
        with np.errstate(invalid="ignore"):
            largest = np.abs(array).max((1, 2), initial=0)
        bad = np.flatnonzero(~(largest < LARGEST))
        if not len(bad):
            return
        name, worst = self._name(indices[bad[0]]), largest[bad[0]]
        if np.isfinite(worst):
            raise ConfigError(f"{self.path}: {name} holds numbers up to {worst:.1e}; give the fields in a larger unit.")
        raise ConfigError(f"{self.path}: {name} holds NaN or inf; repair or remove that field.")

    def moments(self) -> tuple[float, float]:
        """The mean and standard deviation of all numbers: measured; of a large file, its attributes where a part agrees."""
        part = evenly(len(self), self.resolution**2)
        found = measured(self, part)
        if not {"mean", "std"} <= self.facts.keys():
            return found if len(part) == len(self) else measured(self)
        told = self.facts["mean"], self.facts["std"]
        near = 1e-6 if len(part) == len(self) else 0.05  # of the deviation, where a part stands for the whole
        for key, value, own in zip(("mean", "std"), told, found, strict=True):
            if not abs(value - own) <= near * found[1] + 1e-9 * abs(found[0]):
                self.ignore(key, f"{value:.6g} where {own:.6g} is measured")
        if len(self.facts.keys() & {"mean", "std"}) == 2:
            return told[0], told[1]
        return found if len(part) == len(self) else measured(self)

    def _name(self, index: int) -> str:
        return f"field {index}" if self.names is None else f"field {index} (`{self.names[index]}`)"

    def _field(self, index: int) -> np.ndarray:
        field: np.ndarray = self.file["fields"][index] if self.names is None else self.file[self.names[index]][()]
        return field


OPEN: WeakSet[FieldFile] = WeakSet()


def close_all() -> None:
    """Close every open file: a child that inherits one shares its place in the file with its parent."""
    for file in list(OPEN):
        file.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=close_all)


def check_free(path: Path, overwrite: bool) -> None:
    """ConfigError if the file is there and may not be replaced."""
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} is already there; choose another folder, or replace it with overwrite=true.")


def write_fields(
    path: Path,
    fields: Iterable[np.ndarray],
    count: int,
    resolution: int,
    layout: str = "contiguous",
    dtype: str = "float64",
    facts: Facts | None = None,
    overwrite: bool = False,
) -> None:
    """Write a file of fields, complete or not at all; `facts`, the mean and the std become its attributes.

    Args:
        path: the file.
        fields: `count` arrays (N, N).
        count: how many.
        resolution: N.
        layout: contiguous | published.
        dtype: float64 | float32, of the numbers in the file.
        facts: further attributes.
        overwrite: replace a file that is there.
    Raises:
        ConfigError: for an unknown layout or dtype, and for a file that is there unless `overwrite`.
        OSError: there is not enough room on the disk, which is known before the first field is made.
    """
    check.choice("layout", layout, LAYOUTS)
    check.choice("dtype", dtype, DTYPES)
    if layout == "published" and dtype != "float64":
        raise ConfigError("layout=published holds float64; use dtype=float64, or layout=contiguous.")
    check_free(path, overwrite)
    width = max(5, len(str(count - 1)))
    names = [] if layout == "contiguous" else (f"{i:0{width}d}" for i in range(count))
    try:
        with atomic_path(path, replace=overwrite) as beside:
            places = reserve(beside, names, count, resolution, np.dtype(dtype), facts or {})
            moments = fill(beside, zip(places, fields, strict=True), np.dtype(dtype))
            with h5py.File(beside, "r+") as file:  # in place: nothing grows
                file.attrs.modify("mean", moments.mean)
                file.attrs.modify("std", moments.std)
    except FileExistsError:  # another process was faster
        check_free(path, overwrite)
        raise


def reserve(path: Path, names: Iterable[str], count: int, resolution: int, dtype: np.dtype, facts: Facts) -> Sequence[int]:
    """Make a file of fields without numbers, with the room for them on the disk; where each field begins, in bytes.

    HDF5 cannot end a file whose disk is full; so room is taken before there is one, and numbers are written beside HDF5.

    Args:
        path: the file.
        names: of a dataset for each field; none: one dataset `fields`.
        count: how many fields.
        resolution: N.
        dtype: of the numbers.
        facts: attributes.
    Raises:
        OSError: there is not enough room.
    """
    size = resolution**2 * dtype.itemsize
    take_room(path, count * (size + 1024) + 2**20)
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        places: Sequence[int] = [
            file.create_dataset(name, (resolution, resolution), dtype, dcpl=early).id.get_offset() for name in names
        ]
        if not places:
            whole = file.create_dataset("fields", (count, resolution, resolution), dtype, dcpl=early)
            places = range(whole.id.get_offset(), whole.id.get_offset() + count * size, size)
        file.attrs.update(facts | {"resolution": resolution, "mean": 0.0, "std": 0.0})
    take_room(path, path.stat().st_size)
    return places


def take_room(path: Path, size: int) -> None:
    """Give a file at least `size` bytes on the disk. OSError where they are not there."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if size - os.fstat(descriptor).st_size > shutil.disk_usage(path.parent).free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def fill(path: Path, fields: Iterable[tuple[int, np.ndarray]], dtype: np.dtype) -> Moments:
    """Write fields where they begin; the moments of all their numbers."""
    moments = Moments()
    with path.open("r+b") as file:
        for place, field in fields:
            stored = np.ascontiguousarray(field, dtype)
            moments.add(stored)
            file.seek(place)
            file.write(stored.data)
    return moments
