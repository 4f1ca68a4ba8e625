"""Work that takes hours and goes on where it was, should its process die: its state, in files."""

import hashlib
import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from heatgen.runtime.files import save_tensors

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("heatgen")
EVERY = 10.0  # seconds of work that a kill costs, or more where
SHARE = 0.02  # of the time is more than saving may take


class Resumable(Protocol):
    """What has a state that a file can hold: all of it, or what came since it was asked for last (`saved` > 0)."""

    count: int
    saved: int

    def state(self) -> "dict[str, Tensor]":
        """See above; tensors alone."""
        ...

    def load(self, state: "Mapping[str, Tensor]") -> None:
        """Go on from a state, or behind those that were loaded before."""
        ...


class Partial:
    """The pieces of one piece of work, each with a folder of its own.

    Args:
        folder: of them all; it is made when something is saved.
        words: all that the result depends on, so that no work goes on from another's.
    """

    def __init__(self, folder: Path, words: str):
        self.folder, self.pieces = folder / checksum(words), 0

    def piece(self, work: Resumable, words: str, rank: int, world: int) -> "Piece":
        """The next piece, begun or gone on with; words: what tells it from others."""
        self.pieces += 1
        return Piece(self.folder / checksum(f"{self.pieces} {words} {rank} of {world}"), work)

    def remove(self) -> None:
        """Remove all, where the result is written."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.folder.parent.rmdir()  # where nothing else is in it


class Piece:
    """The files of a piece: a state behind the state before it, by the number of samples that they reach to."""

    def __init__(self, folder: Path, work: Resumable):
        self.folder, self.work, self.at = folder, work, 0
        while (path := self._next()) and self._load(path):
            pass
        self.last, self.patience = time.monotonic(), EVERY

    def _next(self) -> Path | None:
        """The file that reaches farthest of those that begin where we are."""
        ends = [path for path in self.folder.glob(f"{self.at:012d}-*.pt") if path.stem[13:].isdigit()]
        ends = [path for path in ends if int(path.stem[13:]) > self.at]
        return max(ends, key=lambda path: int(path.stem[13:])) if ends else None

    def _load(self, path: Path) -> bool:
        """Go on from the state in a file; False, with a line in the log, where it is not whole."""
        import torch

        try:
            state = torch.load(path, weights_only=True)
        except Exception as error:  # whatever its bytes make of PyTorch: the work is done again
            log.info("%s is not whole (%s); what it holds is made again.", path, type(error).__name__)
            return False
        self.work.load(state)
        self.at = self.work.count
        return True

    def save_now_and_then(self) -> None:
        """Save where much would be lost."""
        if time.monotonic() - self.last >= self.patience:
            self.save()

    def save(self) -> None:
        """Save what has come since the last time; a line in the log where that is not possible."""
        if self.work.count == self.at:
            return
        before, begun = self.work.saved, time.monotonic()
        start = self.at if before else 0
        path = self.folder / f"{start:012d}-{self.work.count:012d}.pt"
        try:
            save_tensors(path, self.work.state())
        except OSError as error:
            self.work.saved = before
            log.info("%s cannot be written (%s): should this end, it starts again.", path, error.strerror or error)
        else:
            if not start:  # it holds all
                for other in self.folder.glob("*.pt"):
                    if other != path:
                        other.unlink(missing_ok=True)
            self.at = self.work.count
        self.last = time.monotonic()
        self.patience = max(EVERY, (self.last - begun) / SHARE)


def checksum(words: str) -> str:
    """A short hash of words, for a folder's name."""
    return hashlib.blake2b(words.encode(), digest_size=9).hexdigest()
