"""regime=random: context and targets anywhere in time."""

from dataclasses import dataclass

import torch

from heatgen.noise import SampleNoise
from heatgen.regime.split import Regime, Split, counts


@dataclass(frozen=True)
class Random(Regime):
    """Random frames given others, whose number is uniform on context[0] .. context[1]; all chosen evenly."""

    def split(self, num_frames: int, rng: SampleNoise) -> Split:
        low, high, targets = counts(self.context, self.targets, num_frames)
        num_context, frames = rng.integers(low, high)[:, None], rng.permutation(num_frames)
        mask = torch.arange(high, device=frames.device) < num_context
        return Split(frames[:, :high], mask, frames[:, high : high + targets])
