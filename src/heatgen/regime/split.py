"""Which frames of a trajectory are given (the context) and which are to be predicted (the targets)."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.noise import SampleNoise


@dataclass(frozen=True)
class Split:
    """Indices of frames, 0 .. num_frames - 1, for each sample of a batch.

    context: (B, N) int64, of which `context_mask`, (B, N) bool, says which are there (the others are padding); target:
    (B, M) int64, no frame of which is in the context; sensors: how many pixels of a context frame are observed, None: all.
    """

    context: Tensor
    context_mask: Tensor
    target: Tensor
    sensors: int | None = None


@dataclass(frozen=True)
class Regime:
    """How the frames of a trajectory are split; a subclass writes `split`.

    context: the least and the largest number of context frames, None for a regime that has its own; targets: how many
    frames are to be predicted; sensors: how many pixels of a context frame are observed, at random, None: all.
    """

    context: Sequence[int] | None = (1, 5)
    targets: int = 8
    sensors: int | None = None

    def __call__(self, num_frames: int, rng: SampleNoise) -> Split:
        """Split trajectories.

        Args:
            num_frames: of each trajectory.
            rng: a stream for each of B samples.

        Returns:
            Indices of context and targets.

        Raises:
            ConfigError: an option is out of range, or asks for more frames than there are.
        """
        sensors = None if self.sensors is None else check.integer("regime.sensors", self.sensors, minimum=1)
        return dataclasses.replace(self.split(num_frames, rng), sensors=sensors)

    def split(self, num_frames: int, rng: SampleNoise) -> Split:
        """The frames alone; `__call__` adds the sensors."""
        raise NotImplementedError

    def sized(self, num_context: int | None, targets: int) -> "Regime":
        """This regime with so many context frames, None for its own, and targets."""
        context = self.context if num_context is None else (num_context, num_context)
        return dataclasses.replace(self, context=context, targets=targets)


def counts(context: Sequence[int] | None, targets: int, num_frames: int) -> tuple[int, int, int]:
    """The least and largest number of context frames and the number of targets, checked against the frames there are."""
    if not isinstance(context, (list, tuple)) or len(context) != 2:
        raise ConfigError(f"regime.context must be two numbers, the least and the largest, such as [1,5], not {context!r}.")
    low, high = (check.integer("regime.context", size, minimum=0) for size in context)
    targets = check.integer("regime.targets", targets, minimum=1)
    if low > high:
        raise ConfigError(f"regime.context must ascend, not {list(context)}.")
    if high + targets > num_frames:
        raise ConfigError(
            f"regime.context and regime.targets ask for up to {high + targets} frames of {num_frames}; use fewer, or raise "
            "forward.num_levels."
        )
    return low, high, targets


def in_order(regime: Regime, num_frames: int, rng: SampleNoise) -> Split:
    """Random frames, the earliest of which are the context and the others the targets."""
    low, high, targets = counts(regime.context, regime.targets, num_frames)
    num_context = rng.integers(low, high)[:, None]
    frames = rng.permutation(num_frames)[:, : high + targets]
    place = torch.arange(high + targets, device=frames.device)
    beyond = torch.full_like(frames, num_frames)
    ordered = torch.where(place < num_context + targets, frames, beyond).sort(1).values
    context_mask = place[:high] < num_context
    target = ordered.gather(1, num_context + place[:targets])
    return Split(torch.where(context_mask, ordered[:, :high], torch.zeros_like(ordered[:, :high])), context_mask, target)
