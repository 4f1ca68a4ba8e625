"""Samples against all training images, in bounded memory: many samples at a time, so that the images are read seldom.

For each block of samples the training images are read once, a tile at a time.
"""

import math
from collections.abc import Sequence

from heatgen.noise import batches

SAMPLES = 2**28  # bytes of the samples of a block, in float64
TILE = 2**26  # bytes of the training images of a tile, in float64
MOST = 4096  # training images of a tile, at most, and samples that they are compared with at once


def samples_at_once(shape: Sequence[int], more: int = 0) -> int:
    """How many samples of shape (C, H, W) are compared with the training images while these are read once.

    more: numbers that are held of each sample besides.
    """
    return max(1, SAMPLES // (8 * (math.prod(shape) + more)))


def tiles(n: int, shape: Sequence[int]) -> list[Sequence[int]]:
    """The numbers 0 .. n-1 of training images of shape (C, H, W), in tiles."""
    return batches(range(n), max(1, min(MOST, TILE // (8 * math.prod(shape)))))


def rows_at_once(shape: Sequence[int]) -> int:
    """How many samples are compared with a tile at once."""
    return max(1, min(MOST, TILE // (8 * math.prod(shape))))
