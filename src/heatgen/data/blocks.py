"""All images of a set in order, a block at a time, decoded by several processes where that is wanted."""

import math
import sys
from collections.abc import Iterator, Sequence
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from heatgen.data.images import ImageSet
from heatgen.noise import batches
from heatgen.runtime import children

BYTES, ROWS = 2**20, 256  # of a block, at most, but for one of a single image


def rows_of(shape: tuple[int, ...]) -> int:
    """How many images of this shape, as bytes, are a block."""
    return max(1, min(ROWS, BYTES // math.prod(shape)))


def in_order(images: ImageSet, rows: int, num_workers: int) -> Iterator[Tensor]:
    """The images of a set, `rows` at a time, (rows, C, H, W), as `ImageSet.pixels` has them.

    Args:
        images: the set.
        rows: of a block.
        num_workers: loading processes, which take turns; 0: this process alone.
    """
    blocks = batches(range(len(images)), rows)
    workers = min(num_workers, len(blocks))
    yield from DataLoader(
        cast("Dataset[Sequence[int]]", blocks),  # which a loader takes as they are, and gives to `collate_fn`
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        collate_fn=images.pixels,
        worker_init_fn=children.in_loader,
        generator=torch.Generator(),  # of its own: a loader draws from it, and the numbers of a training stay as they are
    )
