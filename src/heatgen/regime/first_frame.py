"""regime=first_frame: everything from the first frame."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from heatgen.noise import SampleNoise
from heatgen.regime.split import Regime, Split, counts


@dataclass(frozen=True)
class FirstFrame(Regime):
    """Random frames of 1 .. num_frames - 1, given frame 0."""

    context: Sequence[int] | None = None

    def split(self, num_frames: int, rng: SampleNoise) -> Split:
        _, _, targets = counts([1, 1], self.targets, num_frames)
        context = torch.zeros_like(rng.indices)[:, None]
        target = 1 + rng.permutation(num_frames - 1)[:, :targets]
        return Split(context, torch.ones_like(context, dtype=torch.bool), target)
