"""One split of a packed file as a set of images."""

import hashlib
import os
from collections.abc import Sequence

import h5py
import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from heatgen.check import ConfigError
from heatgen.data.image_decoding import shown
from heatgen.data.packed_file import AGAIN, Header, block_sum, opened
from heatgen.noise import batches


class PackedImages:
    """One split of a packed file, as it is stored; a process opens the file when it reads the first of them.

    Images that lie in one piece are mapped into memory, which all processes of a machine share; else h5py reads them.

    Args:
        packed: what the file says of itself.
        split: train | val | test.
        verify: whether the checksum of a block is looked at when its first image is read. Processes that load for this one
            tell each other.
    """

    def __init__(self, packed: Header, split: str, verify: bool = True):
        self.packed, self.split, self.verify = packed, split, verify
        self.start, self.first_block = packed.start(split), packed.first_block(split)
        self.blocks = batches(range(packed.sizes[split]), packed.rows)
        self.verified = torch.zeros(len(self.blocks), dtype=torch.bool).share_memory_()
        self._rows: np.ndarray | h5py.Dataset | None = None
        self._process = 0

    @property
    def labels(self) -> Tensor | None:
        return self.packed.labels.get(self.split)

    def __len__(self) -> int:
        return self.packed.sizes[self.split]

    def __getstate__(self) -> dict[str, object]:
        return self.__dict__ | {"_rows": None}

    @property
    def rows(self) -> np.ndarray | h5py.Dataset:
        """All images of the file, (N, C, H, W), opened by this process."""
        if self._rows is None or self._process != os.getpid():
            path, offset = self.packed.path, self.packed.offset
            try:
                if offset is None:
                    self._rows = opened(path)["images"]
                else:
                    shape = (sum(self.packed.sizes.values()), *self.packed.shape)
                    self._rows = np.memmap(path, self.packed.dtype, "r", offset, shape)
            except (OSError, ValueError) as error:
                raise ConfigError(
                    f"data.path = {shown(path)} has changed since it was opened ({error}); {AGAIN}."
                ) from error
            self._process = os.getpid()
        return self._rows

    def pixels(self, indices: Sequence[int], keys: Sequence[int] | None = None) -> Tensor:
        count = len(self)
        places = [index + count if index < 0 else index for index in map(int, indices)]
        if any(not 0 <= place < count for place in places):
            raise IndexError(f"images 0 to {count - 1}, not {list(indices)}")
        if self.verify:
            for block in sorted({place // self.packed.rows for place in places}):
                self.check(block)
        array = np.empty((len(places), *self.packed.shape), self.packed.dtype)
        for row, place in enumerate(places):
            array[row] = self.rows[self.start + place]
        return torch.from_numpy(array)

    def check(self, block: int) -> None:
        """ConfigError where the images of a block are not those that were written."""
        if self.verified[block]:
            return
        first, last = self.blocks[block][0], self.blocks[block][-1]
        own = block_sum(self.rows[self.start + first : self.start + last + 1])
        if own != bytes(self.packed.sums[self.first_block + block]):
            where = f"of its {self.split} images {first} to {last} the checksum differs"
            raise ConfigError(f"data.path = {shown(self.packed.path)} is damaged ({where}); {AGAIN}.")
        self.verified[block] = True

    def check_all(self) -> None:
        """`check` every block."""
        for block in tqdm(range(len(self.blocks)), f"checking {self.split} images", unit="block", leave=False, delay=2):
            self.check(block)

    def fingerprint(self) -> str:
        return hashlib.blake2b(f"{self.packed.checksum}{self.split}".encode(), digest_size=12).hexdigest()
