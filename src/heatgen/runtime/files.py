"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """A path beside `path` to write a file to, which then replaces `path` at once; an error leaves `path` as it was.

    Args:
        path: the file to be; its folder is made where it is missing.

    Yields:
        <name>.tmp<process id> in the same folder, so that a kill leaves a file that nobody takes for a whole one.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.tmp{os.getpid()}")
    try:
        yield beside
        flush(beside)
        os.replace(beside, path)
        flush(path.parent)
    finally:
        beside.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a small text file, whole or not at all."""
    with atomic_path(path) as beside:
        beside.write_text(text)


def read_small(path: Path, limit: int = 2**17) -> str:
    """The text of a small file. OSError for what is no file, as a pipe that nobody writes, or larger than `limit` bytes."""
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "it is no file", str(path))
    with path.open("rb") as file:
        content = file.read(limit + 1)
    if len(content) > limit:
        raise OSError(errno.EFBIG, f"it has {path.stat().st_size} bytes", str(path))
    return content.decode()
