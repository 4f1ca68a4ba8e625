"""The image files under a folder: what is taken, for which split, and what is left out and why."""

import os
import re
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from heatgen.check import ConfigError
from heatgen.data.image_decoding import shown
from heatgen.data.image_files import Source
from heatgen.data.image_walk import BESIDE, Ledger, Walk, left_alone, scan, status

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


@dataclass(frozen=True)
class Contents:
    """What a folder holds.

    Args:
        paths: of each split that has a folder, and of train; sorted.
        folders: the folder of each split that has one.
        left_out: what is in no split, and why.
        notes: what a user may not have meant, a sentence each.
    """

    paths: dict[str, list[Source]]
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
    taken: dict[str, list[Source]] = {split: [*found] for split, found in paths.items()}
    return Contents(taken, folders, ledger, [*shared(walks), *nested(paths["train"], root, folders)])


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
