"""Frames of trajectories: what is observed of each task, and when."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Frames:
    """N frames of each of B trajectories, in any order; N = 0 is allowed.

    Args:
        times: (B, N), on the map's clock.
        values: (B, N, C, H, W).
        mask: (B, N) bool, True for a frame, False for padding (then its time and values mean nothing).
    Raises:
        ValueError: for shapes that do not fit.
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
        """Frames without padding."""
        return cls(times, values, torch.ones(times.shape, dtype=torch.bool, device=times.device))

    @property
    def count(self) -> Tensor:
        """How many frames each trajectory has, without padding, (B,) int64."""
        return self.mask.sum(1)

    def select(self, indices: Tensor) -> "Frames":
        """The frames at these positions: (n,), the same of every trajectory, or (B, n), each its own."""
        columns = indices.expand(len(self.times), -1) if indices.dim() == 1 else indices
        rows = torch.arange(len(self.times), device=indices.device)[:, None]
        return self._each(lambda x: x[rows, columns])

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
    """What a network is given.

    Args:
        frames: N frames, with times in units of that of the last level.
        pixel_mask: (B, N, 1, H, W), 1 where a pixel of a frame is observed; None: all are.
        cond: (B, F), features of the map; None: none.
    """

    frames: Frames
    pixel_mask: Tensor | None = None
    cond: Tensor | None = None


@dataclass
class Representation:
    """What a network makes of the context at M target times; 1 in place of M where it is the same for all.

    Args:
        r: (B, M or 1, R, ...), a vector or a map of R features.
        mu, sigma: (B, M or 1, Z), mean and deviation of the latent, or None.
        features: (B, M or 1, V), beside a map r, or None.
    """

    r: Tensor
    mu: Tensor | None = None
    sigma: Tensor | None = None
    features: Tensor | None = None
