"""data=hot_spots: a box that is cold but for hot squares with soft edges, made in memory."""

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar, Unpack

import torch
from torch import Tensor
from tqdm import tqdm

from heatgen import check
from heatgen.basis import cosine_matrix
from heatgen.check import ConfigError
from heatgen.data.images import ImageSet, Pixels
from heatgen.data.module import SPLITS, DataModule, DataSettings, DataSpec
from heatgen.noise import generator

Number = TypeVar("Number", int, float)


class Spot(NamedTuple):
    """One hot square: half its side and its first row and column in pixels, and its temperature before smoothing."""

    half_side: int
    row: int
    column: int
    amplitude: float


@dataclass(frozen=True)
class HotSpots:
    """The law of a field, (n, n): a sum of hot squares, smoothed.

    Each square is 2 s pixels wide and lies anywhere inside the box with equal probability, (n - 2 s + 1)^2 places. Squares
    are independent and add up where they overlap, so the law stays that of a sum. Walls are insulating.

    Args:
        resolution: n.
        half_sides: the values of s in pixels, each as probable.
        amplitudes: (low, high); the temperature of a square is uniform between them.
        smoothing: the width of the Gaussian in units of the side of the box.
        spots: (low, high); the number of squares is uniform on low .. high.
    """

    resolution: int
    half_sides: tuple[int, ...]
    amplitudes: tuple[float, float]
    smoothing: float
    spots: tuple[int, int] = (1, 1)

    def profiles(self, half_side: int) -> Tensor:
        """Smoothed intervals of 2 s ones at all places of one axis, (n - 2 s + 1, n) float64.

        A square is a column times a row of these, and so it is at any later time of the heat equation.
        """
        places, pixels = torch.arange(self.resolution - 2 * half_side + 1)[:, None], torch.arange(self.resolution)
        inside = (pixels >= places) & (pixels < places + 2 * half_side)
        return inside.double() @ smoothing_matrix(self.resolution, self.smoothing)

    def templates(self) -> tuple[Tensor, list[tuple[int, int, int]], Tensor]:
        """Every square there can be, at temperature 1, what it is and how probable: one spot's law but for the amplitude.

        Returns:
            The smoothed fields, (M, n, n) float64 with M = sum over s of (n - 2 s + 1)^2; (half side, row, column) of each;
            prior probabilities, (M,) float64, sum 1: the half side is uniform and given it the place is.
        """
        fields, names, weights = [], [], []
        for s in self.half_sides:
            profiles, n = self.profiles(s), self.resolution - 2 * s + 1
            fields.append((profiles[:, None, :, None] * profiles[None, :, None, :]).flatten(0, 1))
            names += [(s, row, column) for row in range(n) for column in range(n)]
            weights.append(torch.full((n * n,), 1 / (len(self.half_sides) * n * n), dtype=torch.float64))
        return torch.cat(fields), names, torch.cat(weights)

    def field(self, spots: Sequence[Spot]) -> Tensor:
        """The field of these squares, (n, n) float64."""
        u = torch.zeros(self.resolution, self.resolution, dtype=torch.float64)
        for s, row, column, amplitude in spots:
            profiles = self.profiles(s)
            u += amplitude * profiles[row, :, None] * profiles[column, None, :]
        return u


@functools.lru_cache
def smoothing_matrix(size: int, width: float) -> Tensor:
    """One axis of the Gaussian blur with insulating walls, (N, N) float64; width in units of the axis, 0: the identity.

    S_ij = sum_k (2 - [k=0])/N cos(pi k (i + 1/2) / N) cos(pi k (j + 1/2) / N) exp(-(pi k width)^2 / 2): the heat equation's
    own flow for a time with D t = width^2 / 2, so smoothing starts its clock earlier. Symmetric, and its rows sum to 1.
    """
    if width == 0:
        return torch.eye(size, dtype=torch.float64)
    k, waves = torch.arange(size, dtype=torch.float64)[:, None], cosine_matrix(size)
    return waves.mT @ (torch.exp(-((math.pi * k * width) ** 2) / 2) * waves)


def draw_spots(law: HotSpots, seed: int, split: str, index: int) -> list[Spot]:
    """The squares of field `index` of a split, from (seed, split, index) alone."""
    source = generator("hot_spots", seed, split, index)

    def whole(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (1,), generator=source))

    def spot() -> Spot:
        s = law.half_sides[whole(0, len(law.half_sides) - 1)]
        row, column = (whole(0, law.resolution - 2 * s) for _ in range(2))
        low, high = law.amplitudes
        share = torch.rand(1, generator=source, dtype=torch.float64).item()
        return Spot(s, row, column, low + (high - low) * share)

    return [spot() for _ in range(whole(*law.spots))]


class HotSpotFields(DataModule):
    """Temperatures u_0, (1, n, n): hot squares in a cold box, smoothed; nothing is read from a file.

    Field i of a split is made from (data_seed, split, i) alone, when the split is first read. The law is `spec.spots`.

    Args:
        resolution: n.
        spots: their number, or [low, high].
        half_side: half the side of a square in whole pixels, or [low, high]; None: n/8 .. n/4.
        amplitude: temperature before smoothing, or [low, high].
        smoothing: the width of the Gaussian in units of the side of the box.
        train_size, val_size, test_size: fields of each split.
        data_seed: of the fields.
        settings: those of `DataModule`.
    Raises:
        ConfigError: for values out of range, a shape that is not [1, n, n], and squares that do not fit into the box.
    """

    drawn_from_law = True

    def __init__(
        self,
        resolution: int = 16,
        spots: int | Sequence[int] = 1,
        half_side: int | Sequence[int] | None = None,
        amplitude: float | Sequence[float] = (0.7, 1.0),
        smoothing: float = 0.06,
        train_size: int = 512,
        val_size: int = 256,
        test_size: int = 1024,
        data_seed: int = 0,
        **settings: Unpack[DataSettings],
    ):
        super().__init__(**settings)
        n = check.integer("data.resolution", resolution, minimum=2)
        sizes = zip(SPLITS, (train_size, val_size, test_size), strict=True)
        self.sizes = {split: check.integer(f"data.{split}_size", size, minimum=1) for split, size in sizes}
        for split, size in self.sizes.items():
            check.memory(f"data.{split}_size", size, 8 * n**2)
        self.data_seed = check.integer("data.data_seed", data_seed, minimum=0)
        if self.spec.shape != (1, n, n):
            raise ConfigError(
                f"data.shape = {list(self.spec.shape)} must be [1, n, n] with n = data.resolution = {n}; "
                "set data.resolution alone."
            )
        positive, own = functools.partial(check.integer, minimum=1), (max(1, n // 8), max(1, n // 4))
        smallest, largest = pair("data.half_side", own if half_side is None else half_side, positive)
        if 2 * largest > n:
            raise ConfigError(f"data.half_side must be at most {n // 2} to fit into data.resolution = {n}, not {largest}.")
        warm, hot = pair("data.amplitude", amplitude, lambda key, value: check.number(key, value, above=0))
        blur = check.number("data.smoothing", smoothing, minimum=0)
        count = pair("data.spots", spots, positive)
        if count[1] > n * n:
            raise ConfigError(f"data.spots must be at most {n * n}, one a pixel of data.resolution = {n}, not {count[1]}.")
        self.law = HotSpots(n, tuple(range(smallest, largest + 1)), (warm, hot), blur, count)
        self.spec = DataSpec(self.spec.shape, (0.0, hot), bits=None, spots=self.law)

    def read(self, split: str) -> ImageSet:
        indices = tqdm(range(self.sizes[split]), f"{split} fields", unit="field", leave=False, delay=2)
        fields = [self.law.field(draw_spots(self.law, self.data_seed, split, i)) for i in indices]
        return Pixels(torch.stack(fields).float()[:, None])


def pair(key: str, value: object, checked: Callable[[str, object], Number]) -> tuple[Number, Number]:
    """`value` as (low, high), both checked; one number is both. ConfigError unless low <= high."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        both = checked(key, value)
        return both, both
    if len(value) != 2:
        raise ConfigError(f"{key} must be one number or a pair [low, high], not {list(value)}.")
    low, high = (checked(key, end) for end in value)
    if high < low:
        raise ConfigError(f"{key} must be a pair [low, high] that ascends, not {list(value)}.")
    return low, high
