"""A walk through folders of image files: links are followed, each file is taken once, what is left out is counted."""

import os
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from heatgen.check import ConfigError
from heatgen.data.image_decoding import shown
from heatgen.data.image_files import suffixes

HIDDEN = "hidden or made by a system"
SUFFIX = "with other suffixes"
SPECIAL = "not regular files"
DANGLING = "links that lead nowhere"
LOOP = "links to a folder that holds them"
AGAIN = "the same file or folder again"
BESIDE = "outside the folders of the splits"
SYSTEM = {"__macosx", "@eadir", "#recycle", "$recycle.bin", "lost+found", "system volume information"}  # in lower case
EXAMPLES = 10  # of each reason that are kept
LOGGED = 3  # of these that are printed


def left_alone(name: str) -> bool:
    """Whether a file or folder is hidden, or one that a system makes for itself."""
    return name.startswith(".") or name.lower() in SYSTEM


@dataclass
class Ledger:
    """How many files were left out for each reason, and some of them."""

    counts: Counter[str] = field(default_factory=Counter)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, path: Path | str, count: int = 1) -> None:
        """`count` files more, one of which is `path`."""
        if count:
            self.counts[reason] += count
            kept = self.examples.setdefault(reason, [])
            another = reason != SUFFIX or all(suffix(name) != suffix(str(path)) for name in kept)
            if len(kept) < EXAMPLES and another:
                kept.append(shown(path))

    def words(self, root: Path) -> str:
        """All of it in one line, with some examples that are named from `root`."""
        parts = []
        for reason, count in sorted(self.counts.items()):
            kept = [name.removeprefix(f"{shown(root)}/") for name in self.examples[reason]]
            parts.append(f"{count} {reason} ({', '.join(kept[:LOGGED])}{', ...' if count > LOGGED else ''})")
        return "; ".join(parts)

    def facts(self) -> list[dict[str, object]]:
        """All of it as plain data."""
        return [{"reason": r, "count": n, "examples": self.examples[r]} for r, n in sorted(self.counts.items())]


class Walk:
    """A walk through folders that follows links and takes each real file and folder once, real ones before links to them.

    Args:
        root: the folder that the user gave.
        ledger: is told what is left out.
    """

    def __init__(self, root: Path, ledger: Ledger):
        self.root, self.ledger = root, ledger
        self.folders: set[str] = set()  # real paths
        self.files: set[object] = set()  # what is the same of all names of a file

    def images(self, folder: Path, skip: Iterable[Path] = ()) -> list[Path]:
        """The image files under a folder, sorted, less what is under `skip` or was found before."""
        skipped = {str(path) for path in skip}
        found: list[tuple[bool, Path, object]] = []
        folders, links = [str(folder)], list[str]()
        if folder != self.root and folder.is_symlink():
            folders, links = links, folders
        while folders or links:
            linked = not folders
            here = folders.pop() if folders else links.pop(0)
            if here in skipped or not (real := self._enter(here, linked)):
                continue
            for entry in scan(here):
                facts = status(entry)
                if facts is not None and stat.S_ISDIR(facts.st_mode) and not left_alone(entry.name):
                    (links if entry.is_symlink() else folders).append(entry.path)
                elif self._takes(entry, facts):
                    found.append((entry.is_symlink() or linked, Path(entry.path), identity(entry, facts, real)))
        found.sort(key=lambda item: item[:2])
        return sorted(path for _, path, key in found if self._first(path, key))

    def _enter(self, folder: str, linked: bool) -> str | None:
        """The real path of a folder that is to be read now; None for a second time, and where it holds the link to it."""
        real = os.path.realpath(folder)
        if linked:
            inside = os.path.join(os.path.realpath(os.path.dirname(folder)), "")
            if any(place.startswith(os.path.join(real, "")) for place in (inside, os.path.realpath(self.root) + os.sep)):
                self.ledger.add(LOOP, folder)
                return None
        if real in self.folders:
            self.ledger.add(AGAIN, folder)
            return None
        self.folders.add(real)
        return real

    def _takes(self, entry: "os.DirEntry[str]", facts: os.stat_result | None) -> bool:
        """Whether an entry that is no folder to be entered is an image file; the ledger is told where not."""
        if left_alone(entry.name):
            self.ledger.add(HIDDEN, entry.path, images_inside(entry))
        elif facts is None:
            self.ledger.add(DANGLING, f"{entry.path} -> {os.readlink(entry.path)}" if entry.is_symlink() else entry.path)
        elif not stat.S_ISREG(facts.st_mode):
            self.ledger.add(SPECIAL, entry.path)
        elif suffix(entry.name) not in suffixes():
            self.ledger.add(SUFFIX, entry.path)
        else:
            return True
        return False

    def _first(self, path: Path, key: object) -> bool:
        """Whether a file is seen for the first time; the ledger is told where not."""
        if key in self.files:
            self.ledger.add(AGAIN, path)
            return False
        self.files.add(key)
        return True


def suffix(name: str) -> str:
    """The suffix of a file's name, in lower case."""
    return os.path.splitext(name)[1].lower()


def scan(folder: str) -> list["os.DirEntry[str]"]:
    """What a folder holds, by name. ConfigError where it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise ConfigError(f"{shown(folder)} cannot be listed ({error.strerror}); make it readable.") from error


def status(entry: "os.DirEntry[str]") -> os.stat_result | None:
    """What the disk knows of a file or folder, or of what a link leads to; None where it leads nowhere."""
    try:
        return entry.stat()
    except OSError:
        return None


def identity(entry: "os.DirEntry[str]", facts: os.stat_result | None, folder: str) -> object:
    """What is the same of all names of a file: its place, or where it has several by itself, its number on the disk.

    Args:
        entry: a name of it.
        facts: its `status`.
        folder: the real path of the folder that it is in.
    """
    if facts is not None and facts.st_nlink > 1 and facts.st_ino:
        return facts.st_dev, facts.st_ino
    return os.path.realpath(entry.path) if entry.is_symlink() else os.path.join(folder, entry.name)


def images_inside(entry: "os.DirEntry[str]") -> int:
    """How many image files a hidden file or folder is or holds, links aside."""
    if not entry.is_dir(follow_symlinks=False):
        return int(suffix(entry.name) in suffixes())
    names = (name for _, _, files in os.walk(entry.path) for name in files)
    return sum(suffix(name) in suffixes() for name in names)
