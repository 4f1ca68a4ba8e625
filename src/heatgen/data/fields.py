"""Continuous fields of N x N numbers, held in memory or read from a file, and the image set that they make."""

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

BLOCK = 256  # fields at a time, where all are read
SAMPLE = 2**24  # numbers that stand for all of a split, where it has more


class Moments:
    """The mean and the (population) standard deviation of all numbers of fields that come one by one.

    Fields are merged by Chan's formula in the order they come, so the same fields give the same bits wherever they are.
    """

    def __init__(self) -> None:
        self.count, self.mean, self.squares = 0, 0.0, 0.0

    def add(self, field: np.ndarray) -> None:
        """One field more."""
        own = float(field.mean(dtype=np.float64))
        count, gap = self.count + field.size, own - self.mean
        spread = float(np.square(field.astype(np.float64) - own).sum())
        self.squares += spread + gap**2 * self.count * field.size / count
        self.mean += gap * field.size / count
        self.count = count

    @property
    def std(self) -> float:
        return math.sqrt(self.squares / self.count)


class Source(Protocol):
    """Fields as they were made, before they are normalised."""

    def __len__(self) -> int: ...

    def raw(self, indices: Sequence[int]) -> np.ndarray:
        """Some fields, (B, N, N) float64."""

    def moments(self) -> tuple[float, float]:
        """The mean and standard deviation of all numbers."""


def evenly(count: int, size: int) -> range:
    """The numbers of fields of `size` pixels, evenly spaced, that stand for `count` of them; all where that is quick."""
    return range(0, count, -(-count * size // SAMPLE))


def measured(source: Source, part: Sequence[int] | None = None) -> tuple[float, float]:
    """The mean and standard deviation of all numbers of a source, or of some of its fields, from the fields themselves."""
    moments, part = Moments(), range(len(source)) if part is None else part
    for start in range(0, len(part), BLOCK):
        for field in source.raw(part[start : start + BLOCK]):
            moments.add(field)
    return moments.mean, moments.std


class FieldArray:
    """Fields in memory, (count, N, N) float64."""

    def __init__(self, array: np.ndarray):
        self.array = array

    def __len__(self) -> int:
        return len(self.array)

    def raw(self, indices: Sequence[int]) -> np.ndarray:
        return self.array[list(indices)]

    def moments(self) -> tuple[float, float]:
        return measured(self)


class Normalised:
    """The image set (x - mean) / std of the fields x of a source; it has no labels."""

    labels = None

    def __init__(self, source: Source, mean: float, std: float):
        self.source, self.mean, self.std = source, mean, std

    def __len__(self) -> int:
        return len(self.source)

    def pixels(self, indices: Sequence[int], keys: Sequence[int] | None = None) -> Tensor:
        """Some fields, normalised, (B, 1, N, N) float32."""
        return torch.from_numpy((self.source.raw(indices) - self.mean) / self.std).float()[:, None]

    def fingerprint(self) -> str:
        """A hash of the fields and of how they are normalised; the same in memory and in files of float64."""
        digest = hashlib.blake2b(repr((self.mean, self.std)).encode(), digest_size=12)
        for start in range(0, len(self), BLOCK):
            digest.update(self.source.raw(range(start, min(start + BLOCK, len(self)))).tobytes())
        return digest.hexdigest()
