"""Frames of trajectories: what is seen of each task, and when."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frames:
    """N frames of each of B trajectories, in any order; N = 0 is allowed.

    times: (B, N) on the map's clock; values: (B, N, C, H, W); mask: (B, N) bool, True where the frame is there and False
    where it only fills the row up (then its time and values mean nothing). ValueError for shapes that do not fit.
    """

    times: Tensor
    values: Tensor
    mask: Tensor

    def __post_init__(self) -> None:
        if self.times.dim() != 2 or self.values.dim() != 5:
            raise ValueError(
                f"Frames need times (B, N) and values (B, N, C, H, W), not {list(self.times.shape)} and "
                f"{list(self.values.shape)}."
            )
        if self.values.shape[:2] != self.times.shape or self.mask.shape != self.times.shape:
            raise ValueError("The times, values and mask of frames must agree in B and N.")
        if self.mask.dtype != torch.bool:
            raise ValueError("The mask of frames must be bool: True where a frame is there.")

    @classmethod
    def of(cls, times: Tensor, values: Tensor) -> "Frames":
        """Frames that are all there."""
        return cls(times, values, torch.ones(times.shape, dtype=torch.bool, device=times.device))

    @property
    def count(self) -> Tensor:
        """How many frames of each trajectory are there, (B,) int64."""
        return self.mask.sum(1)

    def select(self, indices: Tensor) -> "Frames":
        """The frames with these numbers: (n,) the same of every trajectory, or (B, n) each its own."""
        numbers = indices.expand(len(self.times), -1) if indices.dim() == 1 else indices
        rows = torch.arange(len(self.times), device=indices.device)[:, None]
        return self._each(lambda x: x[rows, numbers])

    def part(self, rows: slice) -> "Frames":
        """The trajectories of a slice of the batch."""
        return self._each(lambda x: x[rows])

    def to(self, device: torch.device | str) -> "Frames":
        """The frames on another device (Lightning moves a batch by this)."""
        return self._each(lambda x: x.to(device))

    def _each(self, change: Callable[[Tensor], Tensor]) -> "Frames":
        return Frames(change(self.times), change(self.values), change(self.mask))


def concatenate(a: Frames, b: Frames) -> Frames:
    """The frames of a and then those of b, for the same B trajectories."""
    return Frames(*(torch.cat([getattr(x, name) for x in (a, b)], 1) for name in ("times", "values", "mask")))


@dataclass
class Context:
    """What a network is told: N frames with times in units of the last level.

    seen: (B, N, 1, H, W), 1 where a pixel of a frame is seen, None: all; told: (B, F) numbers of the map, None: none.
    """

    frames: Frames
    pixel_mask: Tensor | None = None
    cond: Tensor | None = None


@dataclass
class Representation:
    """What the context says at the times asked for: r, (B, M or 1, R, ...); mu, sigma of the latent, (B, M or 1, Z).

    facts: numbers beside maps r, (B, M or 1, V), or None.
    """

    r: Tensor
    mu: Tensor | None = None
    sigma: Tensor | None = None
    facts: Tensor | None = None
