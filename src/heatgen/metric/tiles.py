"""Samples against all training images, in bounded memory: many samples at a time, so that the images are read seldom.

For each block of samples the training images are read once, a tile at a time.
"""

import math
from collections.abc import Sequence

from heatgen.noise import batches

SAMPLES = 2**27  # bytes of the samples of a block, in float64
TILE = 2**25  # bytes of the training images of a tile, in float64
MOST = 4096  # training images of a tile, at most, and samples that they are compared with at once
PAIRS = 2**19  # pairs of a sample and a training image that are compared at once


def samples_at_once(numbers: int) -> int:
    """How many samples, of so many numbers each, are compared with the training images while these are read once."""
    return max(1, SAMPLES // (8 * numbers))


def tiles(n: int, shape: Sequence[int]) -> list[Sequence[int]]:
    """The numbers 0 .. n-1 of training images of shape (C, H, W), in tiles."""
    return batches(range(n), rows_at_once(shape))


def rows_at_once(shape: Sequence[int]) -> int:
    """How many samples are compared with a tile at once."""
    return max(1, min(MOST, TILE // (8 * math.prod(shape))))
