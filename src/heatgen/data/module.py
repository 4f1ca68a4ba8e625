"""Where u_0 comes from: the contract of all data sets."""

import functools
import logging
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Required, TypedDict, cast

import lightning as L
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.images import ImageSet, Subset, assigned, shuffled
from heatgen.data.resident import resident
from heatgen.data.stream import Batch, Items, Recipe, Recipes, Stream, StreamSteps, as_fields, as_it_is, batch_of
from heatgen.runtime import children, ranks

if TYPE_CHECKING:
    from heatgen.data.hot_spots import HotSpots

log = logging.getLogger("heatgen")
SPLITS = ("train", "val", "test")
WORKERS = 256  # loading processes, at most
LAWS = ("check", "assume", "measure", "none")


@dataclass(frozen=True)
class Mixture:
    """A mixture of round Gaussians: component m is N(means_m, stds_m^2 I) with probability weights_m.

    Args:
        weights: (M,) float64, sum 1.
        means: (M, C, H, W) float64.
        stds: (M,) float64, 0 for a component that is a single point.
    """

    weights: Tensor
    means: Tensor
    stds: Tensor


@dataclass(frozen=True)
class DataSpec:
    """What a data set says of itself; its law is compared with its samples before answers rest on it (`oracle.law`).

    Args:
        shape: (C, H, W).
        value_range: of the numbers in a batch; continuous data may go beyond it, and are clipped in pictures.
        boundary: the walls that suit it, neumann or periodic.
        bits: of the stored integers, None for continuous data.
        variances: if it is Gaussian, the variance of each coefficient, (C, H, W) float64, in the real Fourier basis
            (`heatgen.basis.Fourier`) where the boundary is periodic, in the cosine basis where it is neumann; or what
            measures it, called when `spectrum` is first read.
        mixture: if it is a mixture of round Gaussians, which.
        spots: if it is hot squares, their law.
        mean: the mean field of Gaussian data, (C, H, W) float64; None: 0.
    """

    shape: tuple[int, ...]
    value_range: tuple[float, float] = (0.0, 1.0)
    boundary: str = "neumann"
    bits: int | None = 8
    variances: Tensor | Callable[[], Tensor] | None = None
    mixture: Mixture | None = None
    spots: "HotSpots | None" = None
    mean: Tensor | None = None

    @functools.cached_property
    def spectrum(self) -> Tensor | None:
        """The variance that each coefficient of Gaussian data is said to have, (C, H, W) float64; None for other data."""
        return self.variances() if callable(self.variances) else self.variances

    def to_unit(self, u: Tensor) -> Tensor:
        """u with value_range mapped to [0, 1], as pictures take it."""
        low, high = self.value_range
        return (u - low) / (high - low)


class DataSettings(TypedDict, total=False):
    """The settings that every data set takes; see `DataModule`."""

    shape: Required[Sequence[int]]
    batch_size: int
    num_workers: int
    flip: bool
    data_dir: str
    seed: int
    augment: bool | None
    limit: int | None
    law: str


class DataModule(L.LightningDataModule):
    """The contract of a data set: batches (`heatgen.data.stream.Batch`) and a `spec`.

    An author writes `read(split)`, and replaces `spec` where the data are not bytes.

    Args:
        shape: (C, H, W).
        batch_size: samples an optimizer step takes, over all devices.
        num_workers: loading processes; 0 suits sets in memory, which need none on a GPU: small ones are kept there.
        flip: mirror training images, left to right, at random.
        data_dir: the folder of downloaded files.
        seed: of the training order.
        augment: turn square training images by quarters and mirror them along both axes at random.
        limit: images of each split for a quick look, the same random ones in every run; None: all.
        law: what exact answers rest on: check, the law that the data set asserts if its samples agree with it within their
            sampling error; assume, that law unchecked; measure, the Gaussian law with the mean and spectrum of the training
            samples; none: there are no exact answers.
    Raises:
        ConfigError: for values out of range.
    """

    states: Tensor | None = None  # (N, C, H, W) at level K, which samples start from in place of training images
    drawn_from_law = False  # whether a class draws its samples from the law that it asserts: then nothing is compared

    def __init__(
        self,
        shape: Sequence[int],
        batch_size: int = 128,
        num_workers: int = 0,
        flip: bool = False,
        data_dir: str = "data",
        seed: int = 0,
        augment: bool | None = False,
        limit: int | None = None,
        law: str = "check",
    ):
        super().__init__()
        self.spec = DataSpec(check.shape("data.shape", shape))
        self.batch_size = check.integer("data.batch_size", batch_size, minimum=1)
        check.memory("data.batch_size", self.batch_size, 4 * math.prod(self.spec.shape))
        self.num_workers = check.integer("data.num_workers", num_workers, minimum=0, maximum=WORKERS)
        self.flip = check.boolean("data.flip", flip)
        self.augment = check.boolean("data.augment", augment)
        if self.augment and self.spec.shape[-2:-1] != self.spec.shape[-1:]:
            raise ConfigError(f"data.augment=true turns square images, not {list(self.spec.shape)}; use augment=false.")
        self.trust = check.choice("data.law", law, LAWS)
        self.seed = check.integer("seed", seed, minimum=0)
        self.data_dir = str(data_dir)
        self.limit = None if limit is None else check.integer("data.limit", limit, minimum=1)
        self._splits: dict[str, ImageSet] = {}
        self.device = torch.device("cpu")  # that trains, and that batches are for
        self._resident: dict[str, Tensor | None] = {}  # those that are on a GPU, or are not to be
        self.repeated = 0  # batches that are trained on again and again, as trainer.overfit_batches has it; 0: the stream
        self.seen, self.seen_at = 0, 0  # samples of the stream that a training had seen when it was resumed, at which step

    def read(self, split: str) -> ImageSet:
        """The images of split "train", "val" or "test", each of shape `spec.shape`; called once a split."""
        raise NotImplementedError

    def images(self, split: str) -> ImageSet:
        """The images of a split, read once. ConfigError for an unknown split or images of another shape."""
        check.choice("split", split, SPLITS)
        if split not in self._splits:
            images = self.limited(self.read(split), split)
            shape = tuple(images.pixels([0]).shape[1:])
            if shape != self.spec.shape:
                raise ConfigError(f"data.shape = {list(self.spec.shape)} differs from the images' own shape {list(shape)}.")
            self._splits[split] = images
        return self._splits[split]

    def limited(self, images: ImageSet, split: str) -> ImageSet:
        """At most `limit` of the images of a split; which ones never depends on a run's seed."""
        if self.limit is None or self.limit >= len(images):
            return images
        if ranks.rank() == 0:
            log.info("data.limit: %d of %d %s images, the same random ones in every run", self.limit, len(images), split)
        return Subset(images, sorted(assigned(len(images), "limit")[: self.limit]))

    def report(self) -> dict[str, object]:
        """What a run keeps of its data in data.json, as plain data: the images of each split that was read, their limit."""
        return {"images": {split: len(images) for split, images in self._splits.items()}, "limit": self.limit}

    def fingerprints(self) -> dict[str, str]:
        """A hash of the images of each split that was read."""
        return {split: images.fingerprint() for split, images in sorted(self._splits.items())}

    def get(self, split: str, indices: Sequence[int]) -> Tensor:
        """u_0 of some images of a split, as in a batch but never augmented.

        Args:
            split: "train", "val" or "test".
            indices: B numbers of images in the split.
        Returns:
            (B, C, H, W) float32.
        """
        return Items(self.images(split), split).__getitems__(indices)["u0"]

    def prior_images(self, indices: Sequence[int], seed: int) -> Tensor:
        """The training images that samples start from where the prior of u_K is a degraded training image.

        Without replacement while they last: samples 0 .. N-1 start from all N training images in a random order.

        Args:
            indices: B numbers of samples, 0, 1, ...
            seed: of the order.
        Returns:
            (B, C, H, W) float32.
        """
        return self.get("train", self.prior_order(indices, seed))

    def prior_order(self, indices: Sequence[int], seed: int) -> list[int]:
        """The numbers, in the training split or in `states`, of what these samples start from."""
        n = len(self.images("train") if self.states is None else self.states)
        order = shuffled(n, seed, "prior")
        return [order[i % n] for i in indices]

    def take(self, split: str, indices: Tensor) -> Tensor:
        """u_0 of some images of a split, on the device of their numbers, (B,): without a wait if the split is there."""
        whole = self.resident(split, indices.device)
        if whole is None:
            return self.get(split, indices.tolist()).to(indices.device)
        return as_fields(whole[indices])

    def resident(self, split: str, device: torch.device) -> Tensor | None:
        """All images of a split on a GPU, as they are stored, if they are in memory and few (`heatgen.data.resident`)."""
        if device.type == "cpu":
            return None
        if split not in self._resident:
            images = self.images(split)
            whole = resident(images)
            if whole is not None:
                whole = Items(images, split).finite(whole, range(len(images))).to(device)
            self._resident[split] = whole
        return self._resident[split]

    def on_after_batch_transfer(self, batch: Batch | Recipe, dataloader_idx: int) -> Batch:
        """The batch itself, of a recipe whose images are on the device."""
        if "u0" in batch:
            return batch
        whole = self._resident[batch["split"]]
        assert whole is not None, "recipes are given of what is there alone"
        return batch_of(batch, whole[batch["index"]])

    def setup(self, stage: str) -> None:
        """Learn from the trainer where batches go."""
        assert self.trainer is not None
        self.device = self.trainer.strategy.root_device

    def prepare_data(self) -> None:
        """Read (and where it must be, download) everything once, in one process."""
        for split in ("train", "val"):
            self.images(split)

    def train_dataloader(self) -> DataLoader[Batch]:
        """The endless stream, cut to the trainer's `max_steps`."""
        trainer = self.trainer
        assert trainer is not None
        if self.batch_size % trainer.world_size:
            raise ConfigError(f"data.batch_size = {self.batch_size} must be a multiple of the {trainer.world_size} devices.")
        accumulate = trainer.accumulate_grad_batches
        steps = StreamSteps(
            self.batch_size,
            lambda: (trainer.global_step * accumulate, self.position()),
            trainer.max_steps * accumulate,
            trainer.global_rank,
            trainer.world_size,
            self.repeated,
        )
        return self._loader(Stream(self.images("train"), self.seed, self.flip, self.augment), steps)

    def position(self) -> int:
        """Where in the stream the next optimizer step begins: how many samples have been seen."""
        trainer = self.trainer
        assert trainer is not None
        since = trainer.global_step - self.seen_at
        return self.seen + since * trainer.accumulate_grad_batches * self.batch_size

    def state_dict(self) -> dict[str, int]:
        """For a checkpoint: how many samples have been seen, and in how many optimizer steps."""
        assert self.trainer is not None
        return {"seen": self.position(), "steps": self.trainer.global_step}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on behind the samples that a checkpoint has seen, whatever the size of a batch was."""
        self.seen, self.seen_at = state_dict["seen"], state_dict["steps"]

    def val_dataloader(self) -> DataLoader[Batch]:
        """The validation images in order, this process's share.

        All shares are equally long, as processes go step by step together: image i belongs to process i mod world, and a
        share that ends early is filled with an image of another process.
        """
        assert self.trainer is not None
        rank, world, count = self.trainer.global_rank, self.trainer.world_size, len(self.images("val"))
        share = [i % count for i in range(rank, -(-count // world) * world, world)]
        size = max(1, self.batch_size // world)
        batches = [share[i : i + size] for i in range(0, len(share), size)]
        return self._loader(Items(self.images("val"), "val"), batches)

    def _loader(self, items: Items, batches: Sampler[list[int]] | list[list[int]]) -> DataLoader[Batch]:
        there = self.resident(items.split, self.device) is not None
        workers = 0 if there else self.num_workers
        fork = workers > 0 and sys.platform == "linux"  # also where a launcher's process has another way
        return DataLoader(
            cast("Items", Recipes(items)) if there else items,  # whose batches `on_after_batch_transfer` makes
            batch_sampler=batches,
            num_workers=workers,
            multiprocessing_context="fork" if fork else None,
            collate_fn=as_it_is,
            worker_init_fn=children.in_loader,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )
