"""The image files under a folder: what is taken, for which split, and what is left out and why."""

import os
import re
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
NAMES = {
    "train": r"train|training|trn",
    "val": r"val|valid|validation|dev|development",
    "test": r"test|testing|tst|eval|evaluation|holdout|heldout",
}
MORE = r"(set|data|images|imgs|split)?((19|20)\d\d)?"  # what may follow, as in val2017


def split_named(name: str) -> str | None:
    """The split that a folder is named after, in any case: train, val or test; None for another name."""
    if left_alone(name):
        return None
    plain = re.sub(r"[\W_]", "", name.lower())
    return next((split for split, names in NAMES.items() if re.fullmatch(f"({names}){MORE}", plain)), None)


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
            if here in skipped or not self._enter(here, linked):
                continue
            for entry in scan(here):
                facts = status(entry)
                if facts is not None and stat.S_ISDIR(facts.st_mode) and not left_alone(entry.name):
                    (links if entry.is_symlink() else folders).append(entry.path)
                elif self._takes(entry, facts):
                    found.append((entry.is_symlink() or linked, Path(entry.path), identity(entry.path, facts)))
        found.sort(key=lambda item: item[:2])
        return sorted(path for _, path, key in found if self._first(path, key))

    def _enter(self, folder: str, linked: bool) -> bool:
        """Whether a folder is to be read now: not for a second time, nor one that holds the link which leads there."""
        real = os.path.realpath(folder)
        if linked:
            inside = os.path.join(os.path.realpath(os.path.dirname(folder)), "")
            if any(place.startswith(os.path.join(real, "")) for place in (inside, os.path.realpath(self.root) + os.sep)):
                self.ledger.add(LOOP, folder)
                return False
        if real in self.folders:
            self.ledger.add(AGAIN, folder)
            return False
        self.folders.add(real)
        return True

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


def identity(path: str, facts: os.stat_result | None) -> object:
    """What is the same of all names of a file: its place, or where it has several by itself, its number on the disk."""
    several = facts is not None and facts.st_nlink > 1 and facts.st_ino
    return (facts.st_dev, facts.st_ino) if facts is not None and several else os.path.realpath(path)


def images_inside(entry: "os.DirEntry[str]") -> int:
    """How many image files a hidden file or folder is or holds, links aside."""
    if not entry.is_dir(follow_symlinks=False):
        return int(suffix(entry.name) in suffixes())
    names = (name for _, _, files in os.walk(entry.path) for name in files)
    return sum(suffix(name) in suffixes() for name in names)


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    Args:
        paths: of each split that has a folder, and of train; sorted.
        folders: the folder of each split that has one.
        left_out: what is in no split, and why.
        notes: what a user may not have meant, a sentence each.
    """

    paths: dict[str, list[Path]]
    folders: dict[str, Path]
    left_out: Ledger
    notes: list[str]


def split_folders(root: Path) -> dict[str, Path]:
    """The folder of each split that has one, whatever its spelling. ConfigError where two claim the same split."""
    found: dict[str, Path] = {}
    for entry in sorted(scan(str(root)), key=lambda entry: (entry.is_symlink(), entry.name)):
        split, facts = split_named(entry.name), status(entry)
        if split is not None and facts is None:
            raise ConfigError(f"{shown(entry.path)}, the {split} split, is a link that leads nowhere; mend or remove it.")
        if split is None or facts is None or not stat.S_ISDIR(facts.st_mode):
            continue
        other = found.setdefault(split, Path(entry.path))
        if os.path.realpath(other) != os.path.realpath(entry.path):
            raise ConfigError(
                f"{shown(other)} and {shown(entry.path)} both claim to be the {split} split; rename or remove one."
            )
    return found


def search(root: Path) -> Contents:
    """What a folder holds, by split.

    Folders directly under it that are named after a split are that split; without one for train, what is in no other
    split's folder is for training. A file is taken once in each split, and never for training because it stands outside
    the folders of val and test under another name.

    Raises:
        ConfigError: there is no such folder, no image in it or in the folder of a split, or two folders claim one split.
    """
    if not root.is_dir():
        raise ConfigError(
            f"data.path = {shown(root)} is not a folder; give data.path=FOLDER, the folder that holds the images now."
        )
    folders, ledger = split_folders(root), Ledger()
    walks = {split: Walk(root, ledger) for split in folders}
    paths = {split: walks[split].images(folder) for split, folder in folders.items()}
    rest = Walk(root, ledger)
    for walk in walks.values():
        rest.folders |= walk.folders
        rest.files |= walk.files
    others = rest.images(root, skip=folders.values())
    for path in others if "train" in folders else ():
        ledger.add(BESIDE, path)
    paths = paths if "train" in folders else {"train": others} | paths
    for split, found in paths.items():
        if not found:
            raise empty(folders.get(split, root), ledger, bool(folders) and split not in folders)
    return Contents(paths, folders, ledger, [*shared(walks), *nested(paths["train"], root, folders)])


def empty(folder: Path, ledger: Ledger, has_splits: bool) -> ConfigError:
    """The sentence for a folder without images."""
    if has_splits:
        return ConfigError(f"data.path = {shown(folder)} holds no training image; put some beside its other folders.")
    left_out = f" (left out: {ledger.words(folder)})" if ledger.counts else ""
    return ConfigError(
        f"data.path = {shown(folder)} holds no image{left_out}; give a folder of PNG, JPEG or other files that Pillow reads."
    )


def shared(walks: dict[str, Walk]) -> list[str]:
    """Notes on files that several splits have."""
    pairs = [(a, b) for a in walks for b in walks if a < b]
    many = {(a, b): len(walks[a].files & walks[b].files) for a, b in pairs}
    return [f"{n} files are in both {a} and {b}, through links." for (a, b), n in many.items() if n]


def nested(paths: list[Path], root: Path, folders: dict[str, Path]) -> list[str]:
    """A note on training images in a folder that is named after another split, deeper than where splits are looked for."""
    top = folders.get("train", root)
    named: Counter[Path] = Counter()
    for folder, count in Counter(path.parent for path in paths).items():
        for parent in (folder, *folder.parents):
            if parent != top and parent.is_relative_to(top) and split_named(parent.name) in ("val", "test"):
                named[parent] += count
    if not named:
        return []
    folder, count = named.most_common(1)[0]
    return [
        f"{count} training images are in {shown(folder)}; a split of its own stands directly under data.path, as with "
        f"data.path={shown(folder.parent)}."
    ]
