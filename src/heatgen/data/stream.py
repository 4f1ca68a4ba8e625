"""Batches: of a split in order, and of the endless stream that training reads.

Position p of the stream is sample order(seed, epoch)[p mod N] of epoch p // N, and batch n takes positions n B ..
(n+1) B - 1. So the order depends on (seed, position) alone: a resumed run, or one on more devices, sees the same samples in
the same steps; one that is resumed with another B goes on at the position where it was.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypedDict, TypeVar, final

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from heatgen import check
from heatgen.data.images import ImageSet, shuffled
from heatgen.noise import mix

Whatever = TypeVar("Whatever")


@final
class Batch(TypedDict):
    """What a training or validation step is given; all on the same device."""

    u0: Tensor  # the clean fields, (B, C, H, W) float32; bytes are scaled to [0, 1]
    index: Tensor  # the number of each sample in its split, (B,) int64
    key: Tensor  # what seeds the noise of each sample: its position in the stream, or its index; (B,) int64
    first: int  # the first of the keys, which is known without a look at a device


@final
class Recipe(TypedDict):
    """What a batch is made of, its images still to be taken from all those of the split; all on one device."""

    split: str
    index: Tensor
    key: Tensor
    first: int
    mirror: Tensor | None  # whether each image is mirrored, left to right, (B,) bool; None: none is
    turn: Tensor | None  # its orientation, (B,) int64, see `turned`; None: its own


def as_fields(pixels: Tensor) -> Tensor:
    """Images as models take them, float32: bytes divided by 255."""
    return pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()


def turned(u: Tensor, orientation: Tensor) -> Tensor:
    """Square images (B, C, H, H), each in one of its 8 orientations; each is that of 2 of the numbers 0 .. 15, (B,) int64.

    1, 2, 3: turned by so many quarters; 4, 8 more: then mirrored along columns, rows.
    """
    orientation = orientation.reshape(-1, 1, 1, 1)
    quarters, columns, rows = orientation % 4, orientation // 4 % 2 == 1, orientation // 8 % 2 == 1
    u = torch.where(quarters % 2 == 1, u.mT, u)
    u = torch.where(columns ^ (quarters == 1) ^ (quarters == 2), u.flip(-2), u)
    return torch.where(rows ^ (quarters >= 2), u.flip(-1), u)


def batch_of(recipe: Recipe, pixels: Tensor) -> Batch:
    """The batch of a recipe whose images are these, (B, C, H, W) bytes or float32."""
    if recipe["mirror"] is not None:
        pixels = torch.where(recipe["mirror"].reshape(-1, 1, 1, 1), pixels.flip(-1), pixels)
    if recipe["turn"] is not None:
        pixels = turned(pixels, recipe["turn"])
    return {"u0": as_fields(pixels), "index": recipe["index"], "key": recipe["key"], "first": recipe["first"]}


class Items(Dataset[Batch]):
    """Batches by the samples' own numbers, in order; their noise keys are these numbers.

    Args:
        images: of a split.
        split: its name.
    """

    def __init__(self, images: ImageSet, split: str = "train"):
        self.images, self.split = images, split

    def recipe(self, names: Sequence[int]) -> Recipe:
        """What the batch of these names is made of: numbers of samples here, positions in a stream."""
        numbers = torch.as_tensor(names)
        return {"split": self.split, "index": numbers, "key": numbers, "first": names[0], "mirror": None, "turn": None}

    def pixels(self, names: Sequence[int], indices: Sequence[int]) -> Tensor:
        """The images of these names, whose numbers are `indices`, (B, C, H, W)."""
        return self.images.pixels(indices)

    def __getitems__(self, names: Sequence[int]) -> Batch:
        recipe = self.recipe(names)
        indices = recipe["index"].tolist()
        return batch_of(recipe, self.finite(self.pixels(names, indices), indices))

    def finite(self, pixels: Tensor, indices: Sequence[int]) -> Tensor:
        """The pixels of these images, (B, C, H, W). ConfigError that names the first one with NaN or inf."""
        if not pixels.is_floating_point():
            return pixels
        pixels = pixels.float()
        if not pixels.sum().isfinite():  # a sum is cheap, and says whether it is worth a look
            check.finite(f"images of split {self.split}", pixels, "repair the data, or leave them out", numbers=indices)
        return pixels


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

    def recipe(self, positions: Sequence[int]) -> Recipe:
        n, recipe = len(self.images), super().recipe(positions)
        recipe["index"] = torch.tensor([self.order(p // n)[p % n] for p in positions])
        if self.flip:
            recipe["mirror"] = torch.tensor([mix(self.seed, "flip", p) % 2 == 1 for p in positions])
        if self.augment:
            recipe["turn"] = torch.tensor([mix(self.seed, "turn", p) % 16 for p in positions])
        return recipe

    def pixels(self, positions: Sequence[int], indices: Sequence[int]) -> Tensor:
        return self.images.pixels(indices, [mix(self.seed, "crop", p) for p in positions])


class Recipes(Dataset[Recipe]):
    """The recipes of batches, whose images are on the device already."""

    def __init__(self, items: Items):
        self.items = items

    def __getitems__(self, names: Sequence[int]) -> Recipe:
        return self.items.recipe(names)


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
