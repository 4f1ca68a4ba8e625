"""Features in a file of NumPy's, float32 (n, F), that grows while they are made: memory holds none of them."""

import io
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from heatgen.check import ConfigError
from heatgen.runtime.files import flush

log = logging.getLogger("heatgen")
BLOCK = 4096  # rows that are read at a time
LARGEST = 2**30  # bytes of a file; of more rows, none are kept
HEADER = 128  # bytes before the first row, whatever n is


class OtherContent(ValueError):
    """A file that is whole and holds something else."""


class RowFile:
    """Rows that several processes write, each its own, to <path>.part, which takes its name when it is whole.

    A kill leaves the part, and who goes on behind some rows goes on with it. Where it cannot be written, nothing is kept.

    Args:
        path: the file to be, in a folder that all processes see.
        n: how many rows there will be.
        world: of how many processes this is one; the rows of each are those at every world-th place.
    """

    def __init__(self, path: Path, n: int, world: int = 1):
        self.path, self.part, self.n, self.world = path, path.with_name(f"{path.name}.part"), n, world
        self.file: BinaryIO | None = None
        self.lost = False

    def give_up(self, reason: str) -> None:
        """Keep nothing."""
        log.info("%s cannot be written (%s); these features are not kept.", self.part, reason)
        self.lost, self.file = True, None
        with suppress(OSError):
            self.part.unlink(missing_ok=True)

    def write(self, rows: Tensor, places: Sequence[int]) -> None:
        """Rows (B, F) at these places."""
        if self.lost or not len(rows):
            return
        array = np.ascontiguousarray(rows.flatten(1).float().numpy())
        size = array.shape[1] * array.itemsize
        try:
            if self.file is None:
                self._open(size, places[0])
            assert self.file is not None
            for part, place in [(array, places[0])] if self.world == 1 else zip(array, places, strict=True):
                self.file.seek(HEADER + place * size)
                self.file.write(part.data)
            self.file.flush()
        except OSError as error:
            self.give_up(error.strerror or str(error))

    def _open(self, size: int, place: int) -> None:
        """Open the part, whose rows before this process's at `place` are there already; rows have `size` bytes."""
        if self.n * size > LARGEST:
            raise OSError(f"they are more than {LARGEST >> 20} MiB")
        if place >= self.world and not self.part.is_file():
            raise OSError("it is gone")
        self.part.parent.mkdir(parents=True, exist_ok=True)
        self.file = os.fdopen(os.open(self.part, os.O_RDWR | os.O_CREAT, 0o666), "r+b")

    def close(self) -> None:
        """Have everything on the disk; before the processes come together."""
        if self.file is None:
            return
        try:
            with self.file as file:
                os.fsync(file.fileno())  # by the file, as another command that makes the same may have given it its name
        except OSError as error:
            self.give_up(error.strerror or str(error))

    @contextmanager
    def gone_if_refused(self) -> Iterator[None]:
        """Keep nothing of what is refused within it."""
        try:
            yield
        except ConfigError:
            self.give_up("they are refused")
            raise

    def finish(self, width: int) -> None:
        """Give the part its name if all rows, of F numbers, are in it; on one process, when all have closed theirs."""
        whole = HEADER + self.n * width * 4
        try:
            if self.lost or not self.part.is_file() or self.part.stat().st_size < whole:
                return
            with self.part.open("r+b") as file:
                file.write(header(self.n, width))
                file.truncate(whole)
            # a hole: another process wrote elsewhere
            if self.world == 1 or all(bool(block.any(1).all()) for block in read_rows(self.part, self.n)):
                flush(self.part)
                os.replace(self.part, self.path)
            self.part.unlink(missing_ok=True)
        except (OSError, OtherContent) as error:
            self.give_up(str(error))


def header(n: int, width: int) -> bytes:
    """How NumPy begins a file of (n, width) float32."""
    buffer = io.BytesIO()
    fields = {"descr": np.lib.format.dtype_to_descr(np.dtype("<f4")), "fortran_order": False, "shape": (n, width)}
    np.lib.format.write_array_header_1_0(buffer, fields)
    assert buffer.tell() == HEADER
    return buffer.getvalue()


def read_rows(path: Path, n: int) -> Iterator[Tensor]:
    """The first n rows of a file, in blocks. OtherContent where it has fewer, or others; or whatever NumPy raises."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    whole = isinstance(array, np.ndarray) and array.dtype == np.float32 and array.ndim == 2 and len(array) >= n
    if not whole or not array.shape[1] or not array.flags.c_contiguous:
        raise OtherContent("it holds something else")
    width, offset = array.shape[1], array.offset
    del array  # whose pages would count as memory
    with path.open("rb") as file:
        file.seek(offset)
        for start in range(0, n, BLOCK):
            count = min(BLOCK, n - start)
            block = np.fromfile(file, np.float32, count * width).reshape(count, width)
            if not np.isfinite(block).all():
                raise OtherContent("it holds something else")
            yield torch.from_numpy(block)
