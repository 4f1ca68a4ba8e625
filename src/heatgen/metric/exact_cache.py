"""Exact answers about tasks, kept in data_dir/statistics/exact: every model of a sweep is measured beside the same ones.

A file is named after all that its answer depends on: the tensors and numbers of the oracle, what its maps make of a probe at
the times of the frames, the frames themselves, and the code. Whatever changes has another file.
"""

import functools
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

import heatgen
from heatgen.forward.process import ForwardProcess
from heatgen.frames import Frames
from heatgen.metric.context import EvalContext
from heatgen.oracle.trajectory import Trajectory
from heatgen.runtime.files import atomic_path

log = logging.getLogger("heatgen")
GOLDEN = (5**0.5 - 1) / 2  # its multiples spread evenly over [0, 1), in no order that a map has


def kept(
    ctx: EvalContext, oracle: Trajectory, what: Iterable[object], frames: Sequence[Frames], compute: Callable[[], Tensor]
) -> Tensor:
    """The exact answer about some tasks, read where it has been computed before, and kept.

    Args:
        ctx: of the data.
        oracle: that answers.
        what: is asked: words, numbers and tensors that the answer depends on besides.
        frames: of the tasks, all of them that the oracle sees.
        compute: gives the answer, float64.
    """
    key = fingerprint(code(), torch.__version__, *what, frames, oracle, probes(oracle, frames))
    path = Path(ctx.data.data_dir) / "statistics" / "exact" / f"{key}.npz"
    if (answer := read(path)) is not None:
        return answer.to(ctx.devices.device)
    answer = compute()
    try:
        with atomic_path(path) as beside, beside.open("wb") as file:
            np.savez(file, answer=answer.cpu().numpy(), key=np.array(key))
    except OSError as error:
        log.info("exact answers cannot be kept in %s (%s).", path.parent, error.strerror or error)
    return answer


def read(path: Path) -> Tensor | None:
    """The answer in a file, whose checksum NumPy compares; None where it is not there or not whole."""
    try:
        if not path.is_file():
            return None
        with np.load(path, allow_pickle=False) as found:
            answer, key = found["answer"], str(found["key"])
        if key == path.stem and answer.dtype == np.float64:
            return torch.from_numpy(answer)
        reason = "it holds something else"
    except Exception as error:  # whatever its bytes make of NumPy: it is a cache
        reason = f"{type(error).__name__}: {error}"
    log.info("%s is not whole (%s); the answer is computed again.", path, reason)
    return None


@functools.cache
def code() -> str:
    """A hash of heatgen's own source."""
    root = Path(heatgen.__file__).parent
    found = hashlib.blake2b(digest_size=16)
    for path in sorted(root.rglob("*.py")):
        found.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return found.hexdigest()


def fingerprint(*things: object) -> str:
    """A hash of text, numbers, tensors, frames and what holds them; of a module, that is a map or a basis, only its kind."""
    found = hashlib.blake2b(digest_size=16)

    def add(thing: object) -> None:
        found.update(f"{type(thing).__qualname__}:".encode())
        if isinstance(thing, Tensor):
            found.update(
                f"{thing.dtype} {tuple(thing.shape)}".encode() + thing.detach().cpu().contiguous().numpy().tobytes()
            )
        elif isinstance(thing, (list, tuple)):
            found.update(str(len(thing)).encode())
            for one in thing:
                add(one)
        elif thing is None or isinstance(thing, (str, int, float, bool)):
            found.update(repr(thing).encode())
        elif not isinstance(thing, nn.Module):  # frames, an oracle
            for name, one in sorted(vars(thing).items()):
                add(name)
                add(one)

    add(things)
    return found.hexdigest()


def probes(oracle: Trajectory, frames: Iterable[Frames]) -> list[Tensor]:
    """What the maps and the bases of an oracle make of an irregular field and of 0, the maps at all times of the frames."""
    held = [one for value in vars(oracle).values() for one in (value if isinstance(value, list) else [value])]
    found: list[Tensor] = []
    for shown in frames:
        shape = shown.values.shape[2:]
        places = torch.arange(shape.numel(), dtype=torch.float64, device=shown.values.device)
        field = (places * GOLDEN).frac().reshape(1, *shape)
        for module in (one for one in held if isinstance(one, nn.Module)):
            if not isinstance(module, ForwardProcess):
                found.append(module(field))
                continue
            for t in torch.where(shown.mask, shown.times, 0).unbind(1):
                both = torch.cat([field, torch.zeros_like(field)])
                rows = both.repeat_interleave(len(t), 0)
                found.append(torch.cat([module.mean(part, t.double()) for part in rows.split(len(t))]))
    return found
