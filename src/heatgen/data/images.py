"""Sets of images: held as bytes or as fields, in memory or not, and parts of them."""

import hashlib
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.noise import SampleNoise, generator


class ImageSet(Protocol):
    """One split of a data set."""

    @property
    def labels(self) -> Tensor | None:
        """The class of each image, (N,) int64; None where the set has none."""

    def __len__(self) -> int: ...

    def pixels(self, indices: Sequence[int], keys: Sequence[int] | None = None) -> Tensor:
        """A copy of some images, (B, C, H, W): bytes as uint8, continuous fields as float32 in the unit of a batch.

        Args:
            indices: B numbers of images.
            keys: B seeds of random crops where a set has them; None: no crop is random.
        """

    def fingerprint(self) -> str:
        """A hash of the images, the same wherever they are the same."""


class Pixels:
    """Images in memory, (N, C, H, W), bytes as uint8 or continuous as float32, and their labels where there are any."""

    def __init__(self, array: Tensor, labels: Tensor | None = None):
        if labels is not None and len(labels) != len(array):
            raise ConfigError(f"There are {len(array)} images but {len(labels)} labels; use the files that belong together.")
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
    return SampleNoise([0], *keys).permutation(n)[0].tolist()


def assigned(n: int, key: str) -> list[int]:
    """The numbers 0 .. n-1 in an order by `key` that no version of heatgen changes: what a data set is made of."""
    return torch.randperm(n, generator=generator(key)).tolist()


def held_out(n: int, size: int, key: str) -> tuple[list[int], list[int]]:
    """The numbers 0 .. n-1 without `size` of them, and those `size`, both ascending; never depends on a run's seed.

    Raises:
        ConfigError: names `key` where size is not from 1 to below n.
    """
    check.integer(key, size, minimum=1)
    if size >= n:
        raise ConfigError(f"{key} must be smaller than the {n} images there are, not {size}.")
    order = assigned(n, "hold out")
    return sorted(order[size:]), sorted(order[:size])


def hold_out(images: ImageSet, size: int, key: str) -> tuple[ImageSet, ImageSet]:
    """`images` without `size` of them, and those `size`; see `held_out`."""
    rest, held = held_out(len(images), size, key)
    return Subset(images, rest), Subset(images, held)
