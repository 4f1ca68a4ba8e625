"""Images that are decoded when they are first needed, and kept for all loading processes of this one."""

import math
import mmap
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from heatgen.data.images import ImageSet


class Kept:
    """A set of bytes of which each image is read once; processes that are forked from this one share what they read.

    Args:
        images: the set.
        shape: (C, H, W).
    """

    def __init__(self, images: ImageSet, shape: tuple[int, ...]):
        self.images, self.shape = images, shape
        count = len(images)
        self.array = np.frombuffer(mmap.mmap(-1, count * math.prod(shape)), np.uint8).reshape(count, *shape)
        self.there = np.frombuffer(mmap.mmap(-1, count), np.bool_)

    def __reduce__(self) -> tuple[type["Kept"], tuple[ImageSet, tuple[int, ...]]]:
        return Kept, (self.images, self.shape)  # a process that is not forked keeps its own

    @property
    def labels(self) -> Tensor | None:
        return self.images.labels

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, indices: Sequence[int], keys: Sequence[int] | None = None) -> Tensor:
        if missing := [index for index in dict.fromkeys(indices) if not self.there[index]]:
            self.array[missing] = self.images.pixels(missing).numpy()
            self.there[missing] = True
        return torch.from_numpy(self.array[list(indices)])

    def fingerprint(self) -> str:
        return self.images.fingerprint()
