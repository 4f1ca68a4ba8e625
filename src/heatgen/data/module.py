"""Where u_0 comes from: the contract of all data sets, and image sets held as bytes or as continuous fields.

Training reads an endless stream: position p of the stream is sample order(seed, epoch)[p mod N] of epoch p // N, and
step n takes positions n B .. (n+1) B - 1. So the order depends on (seed, position) alone: a resumed run, or one on more
devices, sees the same samples in the same steps.
"""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from heatgen import check
from heatgen.check import ConfigError
from heatgen.noise import generator, mix

SPLITS = ("train", "val", "test")


class Late:
    """A field of a dataclass, None unless given, that may be given as a function: it is called when first asked for."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, instance: Any, owner: type) -> Tensor | None:
        if instance is None:
            return None  # the default
        if callable(value := instance.__dict__[self.name]):
            instance.__dict__[self.name] = value = value()
        return value

    def __set__(self, instance: Any, value: Tensor | Callable[[], Tensor] | None) -> None:
        instance.__dict__[self.name] = value


@dataclass(frozen=True)
class Spec:
    """What a data set says of itself.

    shape: (C, H, W). value_range: of the numbers in a batch; those of continuous data may go beyond it, and are clipped in
    pictures. boundary: the walls that suit it, neumann or periodic. bits: of the stored integers, None for continuous data.
    spectrum: if it is Gaussian, the variance of each coefficient, (C, H, W) float64, in the real Fourier basis
    (`heatgen.forward.basis.Fourier`) where the boundary is periodic, in the cosine basis where it is neumann.
    """

    shape: tuple[int, ...]
    value_range: tuple[float, float] = (0.0, 1.0)
    boundary: str = "neumann"
    bits: int | None = 8
    spectrum: Late = Late()

    def to_unit(self, u: Tensor) -> Tensor:
        """u with value_range mapped to [0, 1], as pictures take it."""
        low, high = self.value_range
        return (u - low) / (high - low)


class ImageSet(Protocol):
    """One split of a set of images; labels: (N,) int64, the class of each, None where the set has none."""

    @property
    def labels(self) -> Tensor | None: ...

    def __len__(self) -> int: ...

    def pixels(self, indices: Sequence[int], keys: Sequence[int] | None = None) -> Tensor:
        """A copy of some images, (B, C, H, W): bytes as uint8, continuous fields as float32 in the unit of a batch.

        `keys` seed random crops where a set has them.
        """
        ...

    def fingerprint(self) -> str:
        """A hash of the images, the same wherever they are the same."""
        ...


class Pixels:
    """Images in memory, (N, C, H, W) uint8, and their labels where there are any."""

    def __init__(self, array: Tensor, labels: Tensor | None = None):
        if labels is not None and len(labels) != len(array):
            raise ConfigError(
                f"There are {len(array)} images but {len(labels)} labels; put the files that go together there."
            )
        self.array, self.labels = array, labels

    def __len__(self) -> int:
        return len(self.array)

    def pixels(self, indices: Sequence[int], keys: Sequence[int] | None = None) -> Tensor:
        return self.array[torch.as_tensor(indices, dtype=torch.long)]

    def fingerprint(self) -> str:
        return hashlib.blake2b(self.array.numpy().tobytes(), digest_size=12).hexdigest()


class Subset:
    """Some images of a set."""

    def __init__(self, images: ImageSet, indices: Sequence[int]):
        self.images, self.indices = images, indices

    @property
    def labels(self) -> Tensor | None:
        return None if self.images.labels is None else self.images.labels[list(self.indices)]

    def __len__(self) -> int:
        return len(self.indices)

    def pixels(self, indices: Sequence[int], keys: Sequence[int] | None = None) -> Tensor:
        return self.images.pixels([self.indices[i] for i in indices], keys)

    def fingerprint(self) -> str:
        return hashlib.blake2b(f"{self.images.fingerprint()}{list(self.indices)}".encode(), digest_size=12).hexdigest()


def shuffled(n: int, *keys: int | str) -> list[int]:
    """The numbers 0 .. n-1 in an order that depends on `keys` alone."""
    return torch.randperm(n, generator=generator(*keys)).tolist()


def hold_out(images: ImageSet, size: int, key: str) -> tuple[ImageSet, ImageSet]:
    """`images` without `size` of them, and those; which ones never depends on a run's seed. ConfigError if too many."""
    check.integer(key, size, minimum=1)
    if size >= len(images):
        raise ConfigError(f"{key} must be smaller than the {len(images)} images there are, not {size}.")
    order = shuffled(len(images), "hold out")
    return Subset(images, sorted(order[size:])), Subset(images, sorted(order[:size]))


def as_batch(pixels: Tensor, indices: Sequence[int], keys: Sequence[int]) -> dict[str, Tensor]:
    """{"u0": (B, C, H, W) float32, "index": (B,) the sample's number, "key": (B,) its noise's number}; bytes in [0, 1]."""
    u0 = pixels.float() / 255 if pixels.dtype == torch.uint8 else pixels.float()
    return {"u0": u0, "index": torch.as_tensor(indices), "key": torch.as_tensor(keys)}


class Items(Dataset[dict[str, Tensor]]):
    """Batches by the samples' own numbers, in order: {"u0", "index", "key" = index}."""

    def __init__(self, images: ImageSet):
        self.images = images

    def __getitems__(self, indices: Sequence[int]) -> dict[str, Tensor]:
        return as_batch(self.images.pixels(indices), indices, indices)


def turned(u: Tensor, number: int) -> Tensor:
    """A square image (C, H, H) in one of its 8 orientations; each is that of 2 of the numbers 0 .. 15 (modulo 16)."""
    mirrored = [axis for axis, bit in ((-2, 4), (-1, 8)) if number & bit]
    return u.rot90(number % 4, (-2, -1)).flip(mirrored)


class Stream(Items):
    """Batches by positions of the endless training stream.

    flip mirrors half of the images, left to right; augment turns square ones by quarters and mirrors them along both axes,
    all 8 orientations equally often. Which images, and how, is chosen by position.
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

    def __getitems__(self, positions: Sequence[int]) -> dict[str, Tensor]:
        n = len(self.images)
        indices = [self.order(p // n)[p % n] for p in positions]
        pixels = self.images.pixels(indices, [mix(self.seed, "crop", p) for p in positions])
        if self.flip:
            mirrored = torch.tensor([mix(self.seed, "flip", p) % 2 for p in positions], dtype=torch.bool)
            pixels[mirrored] = pixels[mirrored].flip(-1)
        if self.augment:
            pixels = torch.stack([turned(u, mix(self.seed, "turn", p)) for u, p in zip(pixels, positions, strict=True)])
        return as_batch(pixels, indices, positions)


class StreamSteps(Sampler[list[int]]):
    """The stream positions of each step from start() to `stop`; with several processes, the share of one of them."""

    def __init__(self, batch_size: int, start: Callable[[], int], stop: int, rank: int = 0, world: int = 1):
        self.batch_size, self.start, self.stop, self.rank, self.world = batch_size, start, stop, rank, world

    def __len__(self) -> int:
        return self.stop  # of the whole training, also where a resumed run starts later

    def __iter__(self) -> Iterator[list[int]]:
        for step in range(self.start(), self.stop):
            yield list(range(step * self.batch_size + self.rank, (step + 1) * self.batch_size, self.world))


class DataModule(L.LightningDataModule):
    """The contract of a data set: batches {"u0": (B, C, H, W) float32, ...} and a `spec`.

    An author writes `read(split)`, and replaces `spec` where the data are not bytes. shape: (C, H, W); batch_size: samples
    an optimizer step takes over all devices; num_workers: loading processes (0 suits sets in memory); flip: mirror training
    images at random; augment: turn square ones by quarters and mirror them along both axes at random; data_dir: where files
    are; seed: of the training order. ConfigError for values out of range.
    """

    def __init__(
        self,
        shape: Sequence[int],
        batch_size: int = 128,
        num_workers: int = 0,
        flip: bool = False,
        data_dir: str = "data",
        seed: int = 0,
        augment: bool = False,
    ):
        super().__init__()
        self.spec = Spec(check.shape("data.shape", shape))
        self.batch_size = check.integer("data.batch_size", batch_size, minimum=1)
        self.num_workers = check.integer("data.num_workers", num_workers, minimum=0)
        self.flip = check.boolean("data.flip", flip)
        self.augment = check.boolean("data.augment", augment)
        if self.augment and self.spec.shape[-2:-1] != self.spec.shape[-1:]:
            raise ConfigError(f"data.augment=true turns square images, not {list(self.spec.shape)}; use augment=false.")
        self.seed = check.integer("seed", seed, minimum=0)
        self.data_dir = str(data_dir)
        self._splits: dict[str, ImageSet] = {}

    def read(self, split: str) -> ImageSet:
        """The images of split "train", "val" or "test", each of shape `spec.shape`."""
        raise NotImplementedError

    def images(self, split: str) -> ImageSet:
        """The images of a split, read once. ConfigError for an unknown split or images of another shape."""
        check.choice("split", split, SPLITS)
        if split not in self._splits:
            images = self.read(split)
            shape = tuple(images.pixels([0]).shape[1:])
            if shape != self.spec.shape:
                raise ConfigError(f"data.shape = {list(self.spec.shape)} differs from the images' own shape {list(shape)}.")
            self._splits[split] = images
        return self._splits[split]

    def clean(self, split: str, indices: Sequence[int]) -> Tensor:
        """u_0 of some images of a split, (B, C, H, W) float32, as in a batch."""
        return Items(self.images(split)).__getitems__(indices)["u0"]

    def prior_images(self, samples: Sequence[int], seed: int) -> Tensor:
        """The training images that samples start from, (B, C, H, W): without replacement while they last."""
        return self.clean("train", self.prior_order(samples, seed))

    def prior_order(self, samples: Sequence[int], seed: int) -> list[int]:
        """The numbers of those training images."""
        n = len(self.images("train"))
        order = shuffled(n, seed, "prior")
        return [order[i % n] for i in samples]

    def prepare_data(self) -> None:
        """Read (and where it must be, download) everything once, in one process."""
        for split in ("train", "val"):
            self.images(split)

    def train_dataloader(self) -> DataLoader[Any]:
        """The endless stream, cut to the trainer's `max_steps`."""
        trainer = self.trainer
        assert trainer is not None
        if self.batch_size % trainer.world_size:
            raise ConfigError(f"data.batch_size = {self.batch_size} must be a multiple of the {trainer.world_size} devices.")
        accumulate = trainer.accumulate_grad_batches
        steps = StreamSteps(
            self.batch_size,
            lambda: trainer.global_step * accumulate,
            trainer.max_steps * accumulate,
            trainer.global_rank,
            trainer.world_size,
        )
        return self._loader(Stream(self.images("train"), self.seed, self.flip, self.augment), steps)

    def val_dataloader(self) -> DataLoader[Any]:
        """The validation images in order, this process's share."""
        assert self.trainer is not None
        share = range(self.trainer.global_rank, len(self.images("val")), self.trainer.world_size)
        size = max(1, self.batch_size // self.trainer.world_size)
        batches = [list(share[i : i + size]) for i in range(0, len(share), size)]
        return self._loader(Items(self.images("val")), batches)

    def _loader(self, items: Items, batches: Any) -> DataLoader[Any]:
        return DataLoader(
            items,
            batch_sampler=batches,
            num_workers=self.num_workers,
            collate_fn=as_it_is,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def as_it_is(batch: Any) -> Any:
    """The batch that `__getitems__` made; a named function, so that worker processes can be started any way."""
    return batch
