"""What a queue of trainings takes along to another machine: numbered files, from which it goes on there."""

import hashlib
import io
import json
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from heatgen.check import ConfigError
from heatgen.runtime.files import atomic_path, write_text

PIECE = 15 * 2**20  # bytes of a file
LIST = "queue.json"  # which pieces belong together, written when they are there
USELESS = (".png", ".gif", ".mp4")  # files that are left behind, as is best.ckpt


def pack(state: Path, carry: Path, done: Callable[[str], bool]) -> None:
    """Everything of a state that is needed to go on; what was packed before stays until this is whole.

    Args:
        state: the folder; trainings are in its folder runs.
        carry: the folder of the files.
        done: whether the weights of a training of this name are needed no more.
    """
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for path in sorted(state.rglob("*")):
            name = path.relative_to(state)
            weights = path.suffix == ".ckpt" and (path.name == "best.ckpt" or done(name.parts[1]))
            if weights or path.suffix in USELESS or ".tmp-" in path.name or not path.is_file():
                continue
            with suppress(FileNotFoundError):  # a training goes on beside
                content = path.read_bytes()
                member = tarfile.TarInfo(str(name))
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    content = stream.getvalue()
    carry.mkdir(parents=True, exist_ok=True)
    before = listed(carry)
    kind = "b" if before and before["names"][0].startswith("queue.a") else "a"
    names = [f"queue.{kind}{i:03}" for i in range(-(-len(content) // PIECE))]
    for i, piece in enumerate(names):
        with atomic_path(carry / piece) as beside:
            beside.write_bytes(content[i * PIECE : (i + 1) * PIECE])
    write_text(carry / LIST, json.dumps({"names": names, "checksum": checksum(content)}))
    for old in carry.glob("queue.[ab][0-9]*"):
        if old.name not in names:
            old.unlink()


def unpack(carry: Path, state: Path) -> bool:
    """A state from its pieces; whether there were any. ConfigError where some are missing."""
    expected = listed(carry)
    if expected is None:
        return False
    paths = [carry / str(name) for name in expected["names"]]
    content = b"".join(path.read_bytes() for path in paths if path.is_file())
    if checksum(content) != expected["checksum"]:
        raise ConfigError(f"{carry} lacks some of {', '.join(path.name for path in paths)}; bring them all, or empty it.")
    state.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        archive.extractall(state, filter="data")
    return True


def listed(carry: Path) -> dict[str, list[str]] | None:
    """The list of what is packed; None where nothing is."""
    path = carry / LIST
    return dict(json.loads(path.read_text())) if path.is_file() else None


def checksum(content: bytes) -> str:
    """A hash of what is carried."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()
