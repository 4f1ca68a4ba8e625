"""Work that takes hours and goes on where it was, should its process die: its state, in files."""

import hashlib
import logging
import shutil
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from heatgen.runtime.files import read_small, save_tensors, write_text

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger("heatgen")
EVERY = 10.0  # seconds of work that a kill costs, or more where
SHARE = 0.02  # of the time is more than saving may take
NOTE = "batch_size.txt"
WEEK = 7 * 24 * 3600.0  # seconds, after which what was left is removed


class Resumable(Protocol):
    """What has a state that a file can hold: all of it, or what came since it was asked for last (`saved` > 0)."""

    count: int
    saved: int

    def state(self) -> "dict[str, Tensor]":
        """See above; tensors alone."""

    def load(self, state: "Mapping[str, Tensor]") -> None:
        """Go on from a state, or behind those that were loaded before."""


class Partial:
    """The pieces of one piece of work, each with a folder of its own.

    Args:
        folder: of all such work; it is made when something is saved.
        asked: what was asked for, but for how many samples.
        of: what it is asked of, such as weights: all else that the result depends on, so that none goes on from another's.
        samples: what its samples depend on, of all that was asked for: other work with the same takes what is kept of them.
    """

    def __init__(self, folder: Path, asked: str, of: str = "", samples: str | None = None):
        self.root, self.folder = folder, folder / checksum(asked) / checksum(of)
        self.kept = folder.with_name("features") / checksum(asked if samples is None else samples) / checksum(of)
        self.reached: dict[str, int] = {}  # how many samples each piece is to have

    def tidy(self) -> None:
        """Remove what nobody goes on from: the same work on what is not so any more, and what was left for a week."""
        for root, own in ((self.root, self.folder), (self.kept.parents[1], self.kept)):
            for place in [*root.glob("*/*"), *root.glob("*")]:
                if place in (own, own.parent) or not place.is_dir():
                    continue
                if place.parent == own.parent or time.time() - newest(place) > WEEK:
                    shutil.rmtree(place, ignore_errors=True)

    def beside(self, words: str) -> Path:
        """A file for what is kept of the samples of this work; for a week, as others may want it."""
        return self.kept / f"{checksum(words)}{Path(words).suffix}"

    def piece(self, work: Resumable, words: str, process: tuple[int, int], end: int, size: int) -> "Piece":
        """A piece, begun or gone on with.

        Args:
            work: its state.
            words: what tells it from others; of several with the same words, this is the next.
            process: this one's number, and that of all.
            end: how many samples this process is to have.
            size: of a batch.
        """
        again = sum(name.startswith(f"{checksum(words)}-") for name in self.reached)
        name = f"{checksum(words)}-{again}"
        self.reached[name] = end
        return Piece(self.folder / f"{name}-{process[0]}-{process[1]}", work, end, size)

    @property
    def batch_size(self) -> int:
        """The batch size that it was begun with, where one was noted; else 0."""
        with suppress(OSError, ValueError):
            return int(read_small(self.folder / NOTE))
        return 0

    @batch_size.setter
    def batch_size(self, size: int) -> None:
        with suppress(OSError):  # then nothing can be saved either
            write_text(self.folder / NOTE, f"{size}\n")

    def remove(self) -> None:
        """Remove all, where the result is written; but what reaches farther, as more samples were asked for before."""
        for place in self.folder.glob("*"):
            reached = self.reached.get("-".join(place.name.split("-")[:2]))
            if reached is None or all(end_of(path) <= reached for path in place.glob("*-*.pt")):
                shutil.rmtree(place, ignore_errors=True)
        with suppress(OSError):  # where something else is in them
            if [*self.folder.glob("*")] == [self.folder / NOTE]:
                (self.folder / NOTE).unlink()
            for place in (self.folder, self.folder.parent, self.root):
                place.rmdir()


class Piece:
    """The files of a piece: a state behind the state before it, by the number of samples that they reach to.

    A state of fewer samples than are wanted is gone on from where it ends with a batch, so that all batches are the same.
    """

    def __init__(self, folder: Path, work: Resumable, end: int, size: int):
        self.folder, self.work, self.end, self.size, self.at = folder, work, end, size, 0
        while (path := self._next()) and self._load(path):
            pass
        self.last, self.patience = time.monotonic(), EVERY

    def _next(self) -> Path | None:
        """The file that reaches farthest of those that begin where we are."""
        ends = {end_of(path): path for path in self.folder.glob(f"{self.at:012d}-*.pt")}
        usable = [end for end in ends if self.at < end <= self.end and (end == self.end or end % self.size == 0)]
        return ends[max(usable)] if usable else None

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
                for other in self.folder.glob("*-*.pt"):
                    if end_of(other) < self.work.count:
                        other.unlink(missing_ok=True)
            self.at = self.work.count
        self.last = time.monotonic()
        self.patience = max(EVERY, (self.last - begun) / SHARE)


def end_of(path: Path) -> int:
    """How many samples a state reaches to; 0 for another file."""
    end = path.stem.rpartition("-")[2]
    return int(end) if end.isdigit() else 0


def newest(folder: Path) -> float:
    """When something in a folder was written last."""
    times = [folder.stat().st_mtime]
    for path in folder.rglob("*"):
        with suppress(OSError):  # gone
            times.append(path.stat().st_mtime)
    return max(times)


def checksum(words: str) -> str:
    """A short hash of words, for a folder's name."""
    return hashlib.blake2b(words.encode(), digest_size=9).hexdigest()
