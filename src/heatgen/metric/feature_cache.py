"""Features of data sets, kept in data_dir/statistics: made again where a file is not whole, only made where none can be.

Metrics that hold features keep them as <name>.npy; of those that need moments alone, mode=fid, there is <name>.npz, unless
the features are there, which are then read a block at a time.
"""

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from heatgen.data.images import shuffled
from heatgen.metric.context import EvalContext
from heatgen.metric.extractor import Extractor
from heatgen.metric.reduction import Moments, Reduction, Rows
from heatgen.runtime.files import atomic_path

log = logging.getLogger("heatgen")
Kept = TypeVar("Kept", bound=Reduction)
BLOCK = 4096  # features that are read at a time


def check_sum(text: str) -> str:
    """A short hash of a text."""
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def no_cure(extractor: Extractor) -> str:
    """What to do where features are not finite."""
    return f"{extractor.name} gives no finite features of them; use another metric.extractor or metric.weights"


def agrees(kept: Tensor, first: Tensor) -> bool:
    """Whether kept features (n, F) are those that were asked for: the first row is what the first image has, (1, F)."""
    return kept.shape[1] == first.shape[1] and bool((kept[:1] - first).abs().max() <= 1e-3 * first.abs().max())


class OtherContent(ValueError):
    """A file that is whole and holds something else."""


def blocks(path: Path, n: int, first: Callable[[], Tensor]) -> Iterator[Tensor]:
    """The features in a file, float32, (n, F) together. OtherContent where it holds others, and whatever NumPy raises."""
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    whole = isinstance(array, np.ndarray) and array.dtype == np.float32 and array.ndim == 2 and len(array) == n
    if not whole or not array.shape[1] or not array.flags.c_contiguous:
        raise OtherContent("it holds something else")
    if not agrees(torch.tensor(array[:1]), first()):
        raise OtherContent("it holds features of something else")
    width, offset = array.shape[1], array.offset
    del array  # whose pages would count as memory
    with path.open("rb") as file:
        file.seek(offset)
        for start in range(0, n, BLOCK):
            count = min(BLOCK, n - start)
            block = np.fromfile(file, np.float32, count * width).reshape(count, width)
            if not np.isfinite(block).all():
                raise OtherContent("it holds something else")
            yield torch.from_numpy(block)


def read_moments(path: Path, n: int, first: Callable[[], Tensor]) -> Moments:
    """The moments in a file. OtherContent where it holds others, and whatever NumPy raises."""
    with np.load(path, allow_pickle=False) as file:
        found = {key: torch.from_numpy(file[key]) for key in ("mu", "sigma", "low", "high", "first", "n")}
    shapes, width = {key: tuple(value.shape) for key, value in found.items()}, found["mu"].numel()
    expected = {"mu": (width,), "sigma": (width, width), "low": (width,), "high": (width,), "first": (1, width), "n": ()}
    numbers = all(value.is_floating_point() and bool(value.isfinite().all()) for key, value in found.items() if key != "n")
    if shapes != expected or not numbers or int(found["n"]) != n or not width:
        raise OtherContent("it holds something else")
    if not agrees(found["first"], first()):
        raise OtherContent("it holds features of something else")
    output = Moments()
    output.count, output.low, output.high = n, found["low"], found["high"]
    output.take(found["mu"].double(), found["sigma"].double(), n)
    return output


def read(stem: Path, n: int, into: Kept, first: Callable[[], Tensor]) -> Kept | None:
    """What is kept of n features, reduced; None where no file has it, with a line in the log where one is not whole.

    Args:
        stem: of the files' names.
        n: how many there must be.
        into: what takes them.
        first: the features of the first image, (1, F), which a file must agree with to be believed.
    """
    reasons = []
    for path in (stem.with_name(f"{stem.name}.npz"), stem.with_name(f"{stem.name}.npy")):
        try:
            if path.suffix == ".npz" and isinstance(into, Moments) and path.is_file():
                return read_moments(path, n, first)  # type: ignore[return-value]  # which is what `into` is
            if path.suffix == ".npy" and path.is_file():
                for start, block in enumerate(blocks(path, n, first)):
                    into.add(block, range(start * BLOCK, start * BLOCK + len(block)))
                return into
        except OSError as error:
            reasons.append((path, error.strerror or str(error)))
        except Exception as error:  # whatever its bytes make of NumPy: it is a cache
            reasons.append((path, str(error) if isinstance(error, OtherContent) else f"{type(error).__name__}: {error}"))
    for path, reason in reasons:
        log.info("%s is not whole (%s); the features are made again.", path, reason)
    return None


def write(stem: Path, features: Reduction, first: Tensor) -> str | None:
    """Keep features, or their moments; a sentence where the file cannot be written."""
    try:
        if isinstance(features, Rows):
            with atomic_path(stem.with_name(f"{stem.name}.npy")) as beside, beside.open("wb") as file:
                np.save(file, features.tensor.numpy())
        elif isinstance(features, Moments):
            mu, sigma = (x.numpy() for x in features.gaussian)
            low, high, n = features.low.numpy(), features.high.numpy(), len(features)
            with atomic_path(stem.with_name(f"{stem.name}.npz")) as beside, beside.open("wb") as file:
                np.savez(file, mu=mu, sigma=sigma, low=low, high=high, first=first.numpy(), n=n)
    except OSError as error:
        reason = error.strerror or str(error)
        return f"features of the data cannot be kept in {stem.parent} ({reason}), and are made anew each time."
    return None


def of_split(
    ctx: EvalContext, extractor: Extractor, split: str, n: int | None, make: Callable[[int], Kept]
) -> tuple[Kept, list[str]]:
    """Features of n images of a split, a fixed random choice, reduced: from their file, or made and kept.

    Args:
        ctx: whose data.
        extractor: of the features.
        split: of the data.
        n: how many images; None: all.
        make: what takes the features of so many images.

    Returns:
        What took them, on the first process those of all images, on the others nothing to be used; and what went wrong.

    Raises:
        ConfigError: on every process, features that are not finite.
    """
    images = ctx.data.images(split)
    n = len(images) if n is None else min(n, len(images))
    name = f"{ctx.data_name}_{split}_{n}_{images.fingerprint()}_{check_sum(extractor.name)}"
    stem = Path(ctx.data.data_dir) / "statistics" / name
    chosen = sorted(shuffled(len(images), "statistics")[:n])

    def first() -> Tensor:
        return extractor(images.pixels(chosen[:1]))

    found = read(stem, n, make(n), first) if ctx.devices.first else None
    if ctx.devices.gather(torch.tensor([found is not None])[: ctx.devices.first]).any():  # all go the same way
        return found or make(n), []

    def work(places: Sequence[int], advance: Callable[[], object]) -> tuple[Tensor, None]:
        rows = extractor(images.pixels([chosen[i] for i in places]))
        advance()
        return rows, None

    kept, what = make(n), f"features of {split}"
    ctx.reduce(range(n), work, kept, what, key=name)
    ctx.refuse_rows(kept, what, no_cure(extractor), chosen)
    kept.together(ctx.devices)
    failed = write(stem, kept, first()) if ctx.devices.first and n > 1 else None
    return kept, [failed] if failed else []
