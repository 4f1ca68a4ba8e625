"""Which frames of a trajectory are given (the context) and which are asked for (the targets)."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.noise import SampleNoise


@dataclass(frozen=True)
class Split:
    """Numbers of frames, 0 .. count-1, for each sample of a batch.

    context: (B, N) int64, of which `context_mask`, (B, N) bool, says which are there (the others are
    padding); target: (B, M) int64, no frame of which is in the context; sensors: how many pixels of a context frame are
    seen, None: all.
    """

    context: Tensor
    context_mask: Tensor
    target: Tensor
    sensors: int | None = None


def counts(context: Sequence[int], targets: int, count: int) -> tuple[int, int, int]:
    """The least and largest number of context frames and the number of targets, checked against `count` frames."""
    if not isinstance(context, (list, tuple)) or len(context) != 2:
        raise ConfigError(f"regime.context must be two numbers, the least and the largest, such as [1,5], not {context!r}.")
    low, high = (check.integer("regime.context", number, minimum=0) for number in context)
    targets = check.integer("regime.targets", targets, minimum=1)
    if low > high:
        raise ConfigError(f"regime.context must ascend, not {list(context)}.")
    if high + targets > count:
        raise ConfigError(
            f"regime.context and regime.targets ask for up to {high + targets} frames of {count}; use fewer, or raise "
            "forward.num_levels."
        )
    return low, high, targets


def shuffled_frames(count: int, noise: SampleNoise) -> Tensor:
    """The numbers 0 .. count-1 in an order of each sample's own, (B, count) int64."""
    return noise.uniform_like(torch.empty(len(noise.generators), count)).argsort(1)


def in_order(count: int, noise: SampleNoise, context: Sequence[int], targets: int) -> Split:
    """Random frames, the earliest of which are the context and the others the targets."""
    low, high, targets = counts(context, targets, count)
    number = noise.integers(low, high)[:, None]
    frames, place = shuffled_frames(count, noise)[:, : high + targets], torch.arange(high + targets)
    beyond = torch.full_like(frames, count)
    ordered = torch.where(place < number + targets, frames, beyond).sort(1).values
    context_mask = place[:high] < number
    target = ordered.gather(1, number + torch.arange(targets))
    return Split(torch.where(context_mask, ordered[:, :high], torch.zeros_like(ordered[:, :high])), context_mask, target)
