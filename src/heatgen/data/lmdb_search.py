"""The images in an LMDB, by split."""

import re
from pathlib import Path

from heatgen.check import ConfigError
from heatgen.data.image_decoding import shown
from heatgen.data.image_files import Source
from heatgen.data.image_search import Contents
from heatgen.data.image_walk import HIDDEN, Ledger
from heatgen.data.lmdb_files import AGAIN, Entry, damaged, environment, is_lmdb

SPLIT = re.compile(r"(?:.*[_-])?(train|val|test)(?:[_-]lmdb)?", re.IGNORECASE)  # such as church_outdoor_train_lmdb


def entries(folder: Path, ledger: Ledger) -> list[Entry]:
    """The images of an LMDB in the order of their keys; what begins with __, as some writers' counts do, is left out."""
    found = environment(folder)
    import lmdb

    try:
        with found.begin() as transaction:
            keys = list(transaction.cursor().iternext(values=False))
    except lmdb.Error as error:
        raise damaged(folder, error) from error
    for key in keys:
        if key.startswith(b"__"):
            ledger.add(HIDDEN, str(Entry(folder, key)))
    return [Entry(folder, key) for key in keys if not key.startswith(b"__")]


def search_lmdb(root: Path) -> Contents:
    """What an LMDB holds, or the LMDBs in a folder, by split.

    An LMDB that is named after a split, as LSUN's church_outdoor_train_lmdb is, is that split; another is for training.

    Raises:
        ConfigError: two of them are one split, none is for training, or one holds no image.
    """
    folders, ledger = dict[str, Path](), Ledger()
    for folder in [root] if is_lmdb(root) else sorted(child for child in root.iterdir() if is_lmdb(child)):
        name = SPLIT.fullmatch(folder.name)
        split = name[1].lower() if name and folder != root else "train"
        if split in folders:
            both = f"{shown(folders[split])} and {shown(folder)}"
            raise ConfigError(f"{both} are both LMDBs of the {split} split; give one of them as data.path, or move one.")
        folders[split] = folder
    if "train" not in folders:
        raise ConfigError(f"data.path = {shown(root)} holds no LMDB for training; put one there, such as church_train_lmdb.")
    paths: dict[str, list[Source]] = {split: [*entries(folder, ledger)] for split, folder in folders.items()}
    for split, found in paths.items():
        if not found:
            raise ConfigError(f"data.path = {shown(folders[split])} is an LMDB that holds no image; {AGAIN}.")
    return Contents(paths, {} if is_lmdb(root) else folders, ledger, [])
