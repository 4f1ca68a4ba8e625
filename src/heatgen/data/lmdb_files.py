"""Images in an LMDB, as LSUN comes: a folder with data.mdb, whose values are image files. It needs the package lmdb."""

import os
from dataclasses import dataclass
from functools import total_ordering
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from heatgen.check import ConfigError
from heatgen.data.image_decoding import shown

if TYPE_CHECKING:
    import lmdb

DATA = "data.mdb"
AGAIN = "download or copy it again"
opened: dict[Path, "lmdb.Environment"] = {}  # of this process; an open LMDB does not survive a fork


@total_ordering
@dataclass(frozen=True, slots=True)
class Entry:
    """An image file in an LMDB; it stands where the path of a file does."""

    folder: Path
    key: bytes

    suffix = ".webp"  # whatever it is: of a kind that may have several frames

    def __str__(self) -> str:
        return f"{self.folder}:{self.key.decode(errors='backslashreplace')}"

    def __lt__(self, other: "Entry") -> bool:
        return (self.folder, self.key) < (other.folder, other.key)

    def stat(self) -> os.stat_result:
        """That of the file which holds it."""
        return (self.folder / DATA).stat()

    def open(self) -> BytesIO:
        """Its bytes, as a file. FileNotFoundError where it is gone."""
        import lmdb

        try:
            with environment(self.folder).begin() as transaction:
                value = transaction.get(self.key)
        except lmdb.Error as error:
            raise damaged(self.folder, error) from error
        if value is None:
            raise FileNotFoundError(str(self))
        return BytesIO(value)


def is_lmdb(folder: Path) -> bool:
    """Whether a folder is an LMDB."""
    return (folder / DATA).is_file()


def holds_lmdb(root: Path) -> bool:
    """Whether a folder is an LMDB or has some in it."""
    return root.is_dir() and (is_lmdb(root) or any(is_lmdb(child) for child in root.iterdir()))


def environment(folder: Path) -> "lmdb.Environment":
    """An LMDB, open for reading in this process. ConfigError where it is damaged or cut short, or lmdb is not installed."""
    try:
        import lmdb
    except ImportError as error:
        raise ConfigError(
            f"data.path = {shown(folder)} is an LMDB, which needs the package lmdb: pip install lmdb, or export it as image "
            "files."
        ) from error
    found = opened.get(folder)
    if found is None:
        try:
            found = lmdb.open(str(folder), readonly=True, lock=False, readahead=False, create=False)
        except lmdb.Error as error:
            raise damaged(folder, error) from error
        size, wanted = (folder / DATA).stat().st_size, (found.info()["last_pgno"] + 1) * found.stat()["psize"]
        if size < wanted:  # a read beyond its end would kill the process
            found.close()
            raise ConfigError(f"data.path = {shown(folder)} is cut short at {size} of {wanted} bytes; {AGAIN}.")
        opened[folder] = found
    return found


def damaged(folder: Path, error: Exception) -> ConfigError:
    """The sentence for an LMDB that cannot be read."""
    return ConfigError(f"data.path = {shown(folder)} is not a complete LMDB ({str(error).rstrip('.')}); {AGAIN}.")


def close_all() -> None:
    """Close every open LMDB; it is opened again when it is needed."""
    while opened:
        opened.popitem()[1].close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=close_all)
