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
    """A module (h, context_mask, times, target_times) -> (r, features beside it or None)."""

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
    """What makes an encoder of frames of a shape (C', H, W), with `features` numbers a frame and encodings of `width`."""

    def __call__(self, shape: Sequence[int], features: int, width: int) -> Encoder: ...


class AggregatorFactory(Protocol):
    """What makes an aggregator of encodings of frames of a shape (C, H, W)."""

    def __call__(self, shape: Sequence[int], width: int, causal: bool) -> Aggregator: ...


class DecoderFactory(Protocol):
    """What makes a decoder: `features` numbers of the time and the map, then `extra` ones of the aggregator."""

    def __call__(self, shape: Sequence[int], features: int, extra: int, width: int, outputs: int) -> Decoder: ...
