"""All images of a set in order, a block at a time, decoded by several processes where that is wanted."""

import math
import sys
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from heatgen.data.images import ImageSet
from heatgen.data.stream import as_it_is
from heatgen.runtime import children

BYTES, ROWS = 2**20, 256  # of a block, at most, but for one of a single image


def rows_of(shape: tuple[int, ...]) -> int:
    """How many images of this shape, as bytes, are a block."""
    return max(1, min(ROWS, BYTES // math.prod(shape)))


def blocks_of(count: int, rows: int) -> list[range]:
    """The numbers 0 .. count-1 in blocks of `rows`; the last may be shorter."""
    return [range(start, min(start + rows, count)) for start in range(0, count, rows)]


class Blocks(Dataset[Tensor]):
    """A set of images in blocks.

    Args:
        images: the set.
        blocks: the numbers of the images of each.
    """

    def __init__(self, images: ImageSet, blocks: list[range]):
        self.images, self.blocks = images, blocks

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, number: int) -> Tensor:
        return self.images.pixels(self.blocks[number])


def in_order(images: ImageSet, rows: int, num_workers: int) -> Iterator[Tensor]:
    """The images of a set, `rows` at a time, (rows, C, H, W), as `ImageSet.pixels` has them.

    Args:
        images: the set.
        rows: of a block.
        num_workers: loading processes, which take turns; 0: this process alone.
    """
    blocks = Blocks(images, blocks_of(len(images), rows))
    workers = min(num_workers, len(blocks))
    yield from DataLoader(
        blocks,
        batch_size=None,
        num_workers=workers,
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
        collate_fn=as_it_is,
        worker_init_fn=children.in_loader,
        generator=torch.Generator(),  # of its own: a loader draws from it, and the numbers of a training stay as they are
    )
