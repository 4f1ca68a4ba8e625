"""regime=random: context and targets anywhere in time."""

from collections.abc import Sequence

import torch

from heatgen.noise import SampleNoise
from heatgen.regime.split import Split, counts, shuffled_frames


def random(count: int, noise: SampleNoise, context: Sequence[int] = (1, 5), targets: int = 8) -> Split:
    """`targets` of `count` frames given a number of others, uniform on context[0] .. context[1]; all chosen evenly.

    ConfigError where there are fewer frames than they ask for.
    """
    low, high, targets = counts(context, targets, count)
    number, frames = noise.integers(low, high)[:, None], shuffled_frames(count, noise)
    return Split(frames[:, :high], torch.arange(high) < number, frames[:, high : high + targets])
