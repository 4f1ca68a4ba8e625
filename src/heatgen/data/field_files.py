"""HDF5 files of fields of N x N numbers, read and written.

Two layouts. contiguous: one dataset `fields`, (count, N, N) float32 or float64. published: one float64 dataset (N, N) a
field at the root, named 00000, 00001, ... In both the attributes of the file say what it is; mean and std are those of
all its numbers. Files of others need no attributes.
"""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from weakref import WeakSet

import h5py
import numpy as np

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.fields import Moments, measured
from heatgen.runtime.files import atomic_path

LAYOUTS = ("contiguous", "published")
DTYPES = ("float64", "float32")
FIX = "write it with python -m heatgen.data.grf out=FOLDER"

Facts = dict[str, float | int | str]  # what a file says of itself: its attributes


class FieldFile:
    """The fields of an HDF5 file of either layout, read when they are needed.

    The file is opened when it is needed, by each process for itself: it is closed before a process forks, and left out of
    pickles.

    Args:
        path: the file.
        resolution: N of its fields, (N, N).
    Raises:
        ConfigError: names a file that is missing, truncated, of another kind or of fields of another resolution.
    """

    def __init__(self, path: Path, resolution: int):
        self.path, self.resolution = path, resolution
        self._file: h5py.File | None = None
        self.names: list[str] | None = None  # of the published layout's datasets
        try:
            shape, kind = self._head()
            self.facts: Facts = dict(self.file.attrs)
        finally:
            self.close()
        if len(shape) != 3 or shape[0] < 1 or shape[1] != shape[2] or kind != "f":
            raise ConfigError(f"{path} does not hold square fields of floating-point numbers; {FIX}.")
        if shape[1] != resolution:
            raise ConfigError(
                f"{path} holds fields of {shape[1]}x{shape[1]} and data.resolution is {resolution}; "
                f"use data.resolution={shape[1]} or another data.path."
            )
        self.count = shape[0]

    def __len__(self) -> int:
        return self.count

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_file": None}

    @property
    def file(self) -> h5py.File:
        """The file, opened where it is not."""
        if self._file is None:
            if not self.path.is_file():
                raise ConfigError(f"{self.path} does not exist; {FIX}.")
            try:
                self._file = h5py.File(self.path, "r")
            except OSError as error:
                raise ConfigError(f"{self.path} is not a complete HDF5 file ({error}); {FIX}.") from error
            OPEN.add(self)
        return self._file

    def close(self) -> None:
        """Close the file; it is opened again when it is needed."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def raw(self, indices: Sequence[int]) -> np.ndarray:
        """Some fields, (B, N, N) float64. ConfigError where one cannot be read, has another shape or is not finite."""
        try:
            array = np.stack([self._field(i) for i in indices]).astype(np.float64)
        except (KeyError, OSError, TypeError, ValueError) as error:
            raise ConfigError(f"{self.path} cannot be read completely ({error}); {FIX}.") from error
        if array.shape[1:] != (self.resolution, self.resolution) or not np.isfinite(array).all():
            raise ConfigError(f"{self.path} holds a field that has another shape or is not finite; {FIX}.")
        return array

    def moments(self) -> tuple[float, float]:
        """The mean and standard deviation of all numbers: what the file says of itself, else measured."""
        if "mean" in self.facts and "std" in self.facts:
            return float(self.facts["mean"]), float(self.facts["std"])
        return measured(self)

    def _field(self, index: int) -> np.ndarray:
        field: np.ndarray = self.file["fields"][index] if self.names is None else self.file[self.names[index]][()]
        return field

    def _head(self) -> tuple[tuple[int, ...], str]:
        """The shape (count, N, N) and the kind of number of the file; published files are judged by their first field."""
        if isinstance(fields := self.file.get("fields"), h5py.Dataset):
            return fields.shape, fields.dtype.kind
        names = sorted(self.file)
        first = self.file[names[0]] if names and all(name.isdecimal() for name in names) else None
        if not isinstance(first, h5py.Dataset):
            raise ConfigError(f"{self.path} holds neither a dataset `fields` nor one numbered dataset a field; {FIX}.")
        self.names = names
        return (len(names), *first.shape), first.dtype.kind


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
    """
    check.choice("layout", layout, LAYOUTS)
    check.choice("dtype", dtype, DTYPES)
    if layout == "published" and dtype != "float64":
        raise ConfigError("layout=published holds float64; use dtype=float64, or layout=contiguous.")
    check_free(path, overwrite)
    moments, width = Moments(), max(5, len(str(count - 1)))
    with atomic_path(path) as beside, h5py.File(beside, "w") as file:
        whole = file.create_dataset("fields", (count, resolution, resolution), dtype) if layout == "contiguous" else None
        for i, field in zip(range(count), fields, strict=True):
            stored = field.astype(dtype)
            moments.add(stored)
            if whole is not None:
                whole[i] = stored
            else:
                file.create_dataset(f"{i:0{width}d}", data=stored)
        file.attrs.update((facts or {}) | {"resolution": resolution, "mean": moments.mean, "std": moments.std})
