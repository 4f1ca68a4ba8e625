"""What the parts of a neural process say of themselves, so that those that do not fit are refused."""

import enum
from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

from torch import Tensor


class Layout(enum.Enum):
    """What an encoding of a frame looks like."""

    VECTOR = "vectors"  # (B, R)
    MAP = "maps"  # (B, R, H, W)
    PATCHES = "tokens of patches"  # (B, R, H / p, W / p)
    FRAME = "whole frames"  # (B, C, H, W), as they were observed
    FLOW = "maps that flow as heat"  # maps, and features of the flow beside them

    @property
    def has_mean(self) -> bool:
        """Whether a latent can be made of the mean of such encodings."""
        return self in (Layout.VECTOR, Layout.MAP)


class Encoder(Protocol):
    """A module (y (B, C', H, W), features (B, F)) -> the encoding of each frame, (B, R, ...)."""

    layout: ClassVar[Layout]  # what it gives
    reads_mask: ClassVar[bool]  # whether it can use a channel of observed pixels behind those of y
    needs_mask: ClassVar[bool]  # whether it must have it

    def __call__(self, y: Tensor, features: Tensor) -> Tensor: ...


class Aggregator(Protocol):
    """A module that puts the encodings h of the context of each task together, for target times.

    h: (B, N, R, ...); context_mask: (B, N) bool, True where a frame is there; times: of the frames, (B, N), in units of the
    last level; target_times: (B, M). Returns r, (B, M or 1, R, ...), and features beside it, (B, M or 1, F), or None.
    """

    layouts: ClassVar[Mapping[Layout, Layout]]  # what it gives for each layout that it takes
    features: int  # how many features it gives beside r

    def __call__(
        self, h: Tensor, context_mask: Tensor, times: Tensor, target_times: Tensor
    ) -> tuple[Tensor, Tensor | None]: ...


class Decoder(Protocol):
    """A module (r (B, R, ...), features (B, F)) -> (B, outputs C, H, W)."""

    layout: ClassVar[Layout]  # what it takes

    def __call__(self, r: Tensor, features: Tensor) -> Tensor: ...


class EncoderFactory(Protocol):
    """What makes an encoder, its own options bound.

    Args:
        shape: of y, (C', H, W): a channel of observed pixels included, where there is one.
        features: how many numbers stand beside a frame: its time, and those of the map.
        width: R.
    """

    def __call__(self, shape: Sequence[int], features: int, width: int) -> Encoder: ...


class AggregatorFactory(Protocol):
    """What makes an aggregator, its own options bound.

    Args:
        shape: of a frame, (C, H, W).
        width: R.
        causal: whether frames that are later than a target do not count.
    """

    def __call__(self, shape: Sequence[int], width: int, causal: bool) -> Aggregator: ...


class DecoderFactory(Protocol):
    """What makes a decoder, its own options bound.

    Args:
        shape: of a frame, (C, H, W).
        features: how many numbers of the time and of the map a frame has.
        extra: how many more the aggregator gives, behind them.
        width: R.
        outputs: numbers a pixel that the likelihood needs.
    """

    def __call__(self, shape: Sequence[int], features: int, extra: int, width: int, outputs: int) -> Decoder: ...
