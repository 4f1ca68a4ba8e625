"""A folder of one's own: claimed by a mkdir that fails where it is there, and locked while a process works in it."""

import errno
import fcntl
import json
import logging
import os
import socket
import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from itertools import count
from pathlib import Path

from heatgen.check import ConfigError
from heatgen.runtime.command import command_line

log = logging.getLogger("heatgen")
LOCK = ".lock"  # in a folder: who works in it
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)  # a file system without them
held: dict[Path, int] = {}  # the open files of this process's locks
made: set[Path] = set()  # the folders that this process has made


def claim(folder: Path) -> Path:
    """Make a folder that nobody else has: `folder`, or <folder>_2, _3, ... where it is there.

    Args:
        folder: the wanted one; the folders above it are made where they are missing.

    Returns:
        The one that was made, absolute.
    """
    folder = folder.absolute()
    folder.parent.mkdir(parents=True, exist_ok=True)
    paths = (folder if number == 1 else folder.with_name(f"{folder.name}_{number}") for number in count(1))
    return next(filter(make, paths))


def make(folder: Path) -> bool:
    """Make a folder, and the folders above it; whether it was not there before."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        folder.mkdir()
    except FileExistsError:
        if not folder.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, "it is a file", str(folder)) from None
        return False
    made.add(folder.absolute())
    return True


def give_up(folder: Path, more: Collection[str] = ()) -> None:
    """Remove a folder that this process made, where nothing is in it but a lock, logs and files of these names."""
    folder = folder.absolute()
    if folder not in made or not folder.is_dir():
        return
    files = list(folder.iterdir())
    if all(file.is_file() and (file.name in (LOCK, *more) or file.suffix == ".log") for file in files):
        for file in files:
            file.unlink(missing_ok=True)
        folder.rmdir()
        made.discard(folder)


@contextmanager
def lock(folder: Path, what: str = "is being trained", patience: float = 0) -> Iterator[None]:
    """Keep a folder to this process, and to those that inherit `descriptors`, which keep it as long as one of them lives.

    Args:
        folder: that is there.
        what: is done in it, for the sentence of who comes second.
        patience: seconds to wait for another process to end.

    Raises:
        ConfigError: another process works in it.
    """
    folder = folder.absolute()
    if folder in held:
        yield
        return
    deadline = time.monotonic() + patience
    while (descriptor := attempt(folder / LOCK)) is None:
        if time.monotonic() > deadline:
            raise ConfigError(f"{folder} {what} by {holder(folder)}; wait for it or end it.")
        time.sleep(0.1)
    held[folder] = descriptor
    sign(folder)
    try:
        yield
    finally:
        del held[folder]
        os.ftruncate(descriptor, 0)
        fcntl.flock(descriptor, fcntl.LOCK_UN)  # also where a child still has it open
        os.close(descriptor)


def attempt(path: Path) -> int | None:
    """The open lock file, locked; None where another process has it."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in NO_LOCKS:
                log.warning("Note: %s is on a file system without locks; let one process at a time work there.", path.parent)
                return descriptor
            os.close(descriptor)
            if error.errno in (errno.EAGAIN, errno.EACCES):
                return None
            raise
        try:
            if os.path.samestat(os.fstat(descriptor), os.stat(path)):
                return descriptor
        except FileNotFoundError:
            pass
        os.close(descriptor)  # its owner has removed the folder in between


def sign(folder: Path) -> None:
    """Say in the lock that it is this process that works in a folder."""
    content = {
        "pid": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().isoformat(" ", timespec="seconds"),
        "command": command_line(),
    }
    with (folder / LOCK).open("r+") as file:
        file.write(json.dumps(content) + "\n")
        file.truncate()


def holder(folder: Path) -> str:
    """Who works in a folder, as its lock says."""
    for _ in range(20):
        try:
            content = json.loads((folder / LOCK).read_text())
            return f"process {content['pid']} on {content['host']} since {content['since']}"
        except (OSError, ValueError, TypeError, KeyError):  # it is about to sign
            time.sleep(0.05)
    return "another process"


def descriptors() -> tuple[int, ...]:
    """The open files of this process's locks, for `pass_fds` of a process that works for it."""
    return tuple(held.values())
