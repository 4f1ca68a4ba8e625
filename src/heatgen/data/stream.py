"""Batches: of a split in order, and of the endless stream that training reads.

Position p of the stream is sample order(seed, epoch)[p mod N] of epoch p // N, and batch n takes positions n B ..
(n+1) B - 1. So the order depends on (seed, position) alone: a resumed run, or one on more devices, sees the same samples in
the same steps; one that is resumed with another B goes on at the position where it was.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict, TypeVar

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from heatgen import check
from heatgen.data.images import ImageSet, shuffled
from heatgen.noise import mix

Whatever = TypeVar("Whatever")


class Batch(TypedDict):
    """What a training or validation step is given; all on the same device."""

    u0: Tensor  # the clean fields, (B, C, H, W) float32; bytes are scaled to [0, 1]
    index: Tensor  # the number of each sample in its split, (B,) int64
    key: Tensor  # what seeds the noise of each sample: its position in the stream, or its index; (B,) int64
    first: int  # the first of the keys, which is known without a look at a device


def as_batch(pixels: Tensor, indices: Sequence[int], keys: Sequence[int]) -> Batch:
    """The batch of these images, (B, C, H, W) bytes or float32, with their numbers and noise keys."""
    u0 = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
    return {"u0": u0, "index": torch.as_tensor(indices), "key": torch.as_tensor(keys), "first": keys[0]}


class Items(Dataset[Batch]):
    """Batches by the samples' own numbers, in order; their noise keys are these numbers.

    Args:
        images: of a split.
        split: its name.
    """

    def __init__(self, images: ImageSet, split: str = "train"):
        self.images, self.split = images, split

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        return as_batch(self.finite(self.images.pixels(indices), indices), indices, indices)

    def finite(self, pixels: Tensor, indices: Sequence[int]) -> Tensor:
        """The pixels of these images, (B, C, H, W). ConfigError that names the first one with NaN or inf."""
        if not pixels.is_floating_point():
            return pixels
        pixels = pixels.float()
        if not pixels.sum().isfinite():  # a sum is cheap, and says whether it is worth a look
            check.finite(f"images of split {self.split}", pixels, "repair the data, or leave them out", numbers=indices)
        return pixels


def turned(u: Tensor, orientation: int) -> Tensor:
    """A square image (C, H, H) in one of its 8 orientations; each is that of 2 of the numbers 0 .. 15 (modulo 16)."""
    mirrored = [axis for axis, bit in ((-2, 4), (-1, 8)) if orientation & bit]
    return u.rot90(orientation % 4, (-2, -1)).flip(mirrored)


class Stream(Items):
    """Batches by positions of the endless training stream; their noise keys are these positions.

    Args:
        images: the training split.
        seed: of the order, and of which images are changed and how, which depends on their position alone.
        flip: mirror half of the images, left to right.
        augment: turn square images by quarters and mirror them along both axes, all 8 orientations equally often.
    """

    def __init__(self, images: ImageSet, seed: int, flip: bool = False, augment: bool = False):
        super().__init__(images)
        self.seed, self.flip, self.augment = seed, flip, augment
        self._orders: dict[int, list[int]] = {}

    def order(self, epoch: int) -> list[int]:
        """The order of the images in an epoch; the last two are remembered."""
        if epoch not in self._orders:
            kept = {e: order for e, order in self._orders.items() if e == epoch - 1}
            self._orders = kept | {epoch: shuffled(len(self.images), self.seed, "order", epoch)}
        return self._orders[epoch]

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        n = len(self.images)
        indices = [self.order(p // n)[p % n] for p in positions]
        pixels = self.finite(self.images.pixels(indices, [mix(self.seed, "crop", p) for p in positions]), indices)
        if self.flip:
            mirrored = torch.tensor([mix(self.seed, "flip", p) % 2 for p in positions], dtype=torch.bool)
            pixels[mirrored] = pixels[mirrored].flip(-1)
        if self.augment:
            pixels = torch.stack([turned(u, mix(self.seed, "turn", p)) for u, p in zip(pixels, positions, strict=True)])
        return as_batch(pixels, indices, positions)


class StreamSteps(Sampler[list[int]]):
    """The stream positions of each batch of a training, from where it stands.

    Args:
        batch_size: positions per batch, over all processes.
        start: the number of the next batch and its first position, asked when the loader starts, so that a resumed run goes
            on where it was.
        stop: the batch to stop before.
        rank, world: which of how many processes this one is; it takes every world-th position.
        repeated: the first so many batches come again and again, with the noise of their positions; 0: they do not.
    """

    def __init__(
        self,
        batch_size: int,
        start: Callable[[], tuple[int, int]],
        stop: int,
        rank: int = 0,
        world: int = 1,
        repeated: int = 0,
    ):
        self.batch_size, self.start, self.stop, self.rank, self.world = batch_size, start, stop, rank, world
        self.period = repeated * batch_size

    def __len__(self) -> int:
        return self.stop  # of the whole training, also where a resumed run starts later

    def __iter__(self) -> Iterator[list[int]]:
        batch, first = self.start()
        for begin in range(first, first + (self.stop - batch) * self.batch_size, self.batch_size):
            positions = range(begin + self.rank, begin + self.batch_size, self.world)
            yield [p % self.period for p in positions] if self.period else list(positions)


def as_it_is(batch: Whatever) -> Whatever:
    """The batch that `__getitems__` made; a named function, so that worker processes can be started any way."""
    return batch
