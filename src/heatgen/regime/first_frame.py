"""regime=first_frame: everything from the first frame."""

import torch

from heatgen.noise import SampleNoise
from heatgen.regime.split import Split, counts, shuffled_frames


def first_frame(count: int, noise: SampleNoise, targets: int = 8) -> Split:
    """`targets` random frames of 1 .. count-1, given frame 0. ConfigError where there are fewer."""
    counts([1, 1], targets, count)
    context = torch.zeros(len(noise.generators), 1, dtype=torch.long)
    return Split(context, torch.ones_like(context, dtype=torch.bool), 1 + shuffled_frames(count - 1, noise)[:, :targets])
