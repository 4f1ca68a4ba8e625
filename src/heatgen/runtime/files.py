"""Files that are whole or not there: written beside their place, flushed to the disk, then renamed."""

import errno
import glob
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

from heatgen.check import ConfigError

if TYPE_CHECKING:
    from PIL import Image


@contextmanager
def atomic_path(path: Path, replace: bool = True) -> Iterator[Path]:
    """A path beside `path` to write a file to, which then replaces `path` at once; an error leaves `path` as it was.

    What a process that was killed has left of the same file is removed first.

    Args:
        path: the file to be; its folder is made where it is missing.
        replace: a file that is there by then.

    Yields:
        <name>.tmp-<host>-<process id> in the same folder, so that a kill leaves a file that nobody takes for a whole one.

    Raises:
        OSError: the folder or the file cannot be written; FileExistsError where it may not replace one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent, glob.escape(path.name))
    beside = temporary(path)
    try:
        yield beside
        flush(beside)
        if replace:
            os.replace(beside, path)
        elif not take(path, beside):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
        flush(path.parent)
    except OSError as error:
        if error.errno is not None:  # one of the system, and a full disk does not say where
            error.filename = error.filename or str(path)
        raise
    finally:
        beside.unlink(missing_ok=True)


def temporary(path: Path) -> Path:
    """Where this process writes a file before it takes its name."""
    return path.with_name(f"{path.name}.tmp-{host()}-{os.getpid()}")


def host() -> str:
    """This machine, in a file's name."""
    return socket.gethostname().replace("/", "_")[:40]


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove what processes of this machine that have ended left of a file of a folder, or of all."""
    for leftover in folder.glob(f"{name}.tmp-{glob.escape(host())}-*"):
        number = leftover.name.rpartition("-")[2]
        if number.isdigit() and not is_alive(int(number)):
            leftover.unlink(missing_ok=True)


def is_alive(process: int) -> bool:
    """Whether there is a process of this number on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        pass  # somebody else's
    return True


def flush(path: Path) -> None:
    """Wait until a file, or a folder's list of files, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def absolute(path: str | Path) -> Path:
    """A path as the user means it: from the root on, with ~ written out."""
    return Path(path).expanduser().absolute()


def shown(path: Path) -> str:
    """A path as a user would type it: from the current folder on where it is within that."""
    here = Path.cwd()
    return str(path.absolute().relative_to(here)) if path.absolute().is_relative_to(here) else str(path)


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


def save_picture(path: Path, image: "Image.Image") -> None:
    """Write a picture of the kind that its name says, whole or not at all. ConfigError for a name that says none."""
    from PIL import Image

    kind = Image.registered_extensions().get(path.suffix.lower())
    if kind is None:
        raise ConfigError(f"{path} has no name of a picture; end it with .png.")
    with atomic_path(path) as beside:
        image.save(beside, kind)


def save_tensors(path: Path, content: object) -> None:
    """torch.save, whole or not at all. OSError where it cannot be written, also where PyTorch makes another error of it."""
    import torch

    with atomic_path(path) as beside, beside.open("wb") as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise


def write_new(path: Path, text: str) -> Path:
    """Write a small text file, whole or not at all, under a free name: `path`, or with _2, _3, ... before its suffix.

    Several processes that write at one instant get a name each.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(path.parent)  # of all, as a second try may come to another name
    beside = temporary(path)
    targets = (path if number == 1 else path.with_name(f"{path.stem}_{number}{path.suffix}") for number in count(1))
    try:
        beside.write_text(text)
        flush(beside)
        target = next(target for target in targets if take(target, beside))
        flush(path.parent)
        return target
    finally:
        beside.unlink(missing_ok=True)


def take(target: Path, beside: Path) -> bool:
    """Give a file a second name; whether that was free."""
    try:
        os.link(beside, target)
        return True
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
    try:  # a file system that knows one name a file
        os.close(os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return False
    os.replace(beside, target)
    return True
