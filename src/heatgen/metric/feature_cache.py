"""Features of data sets, kept in data_dir/statistics: made again where a file is not whole, only made where none can be.

Features are kept as <name>.npy, from which they are read a block at a time; mode=fid also keeps <name>.npz, the moments, and
where the features would be more than `row_file.LARGEST` these alone.
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
from heatgen.metric.row_file import OtherContent, RowFile, read_rows
from heatgen.runtime.files import atomic_path

log = logging.getLogger("heatgen")
Kept = TypeVar("Kept", bound=Reduction)


def no_cure(extractor: Extractor) -> str:
    """What to do where features are not finite."""
    return f"{extractor.name} gives no finite features of them; use another metric.extractor or metric.weights"


def agrees(kept: Tensor, first: Tensor) -> bool:
    """Whether kept features (n, F) are those that were asked for: the first row is what the first image has, (1, F)."""
    return kept.shape[1] == first.shape[1] and bool((kept[:1] - first).abs().max() <= 1e-3 * first.abs().max())


def blocks(path: Path, n: int, first: Callable[[], Tensor]) -> Iterator[Tensor]:
    """The features in a file, float32, (n, F) together. OtherContent where it holds others, and whatever NumPy raises."""
    believed = False
    for block in read_rows(path, n):
        if not believed and not agrees(block[:1], first()):
            raise OtherContent("it holds features of something else")
        believed = True
        yield block


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
                return into.fill(blocks(path, n, first))
        except OSError as error:
            reasons.append((path, error.strerror or str(error)))
        except Exception as error:  # whatever its bytes make of NumPy: it is a cache
            reasons.append((path, str(error) if isinstance(error, OtherContent) else f"{type(error).__name__}: {error}"))
    for path, reason in reasons:
        log.info("%s is not whole (%s); the features are made again.", path, reason)
    return None


def write(stem: Path, features: Reduction, first: Tensor) -> str | None:
    """Keep features that are held, or their moments; a sentence where the file cannot be written."""
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
    digest = hashlib.blake2b(extractor.name.encode(), digest_size=6).hexdigest()
    name = f"{ctx.data_name}_{split}_{n}_{images.fingerprint()}_{digest}"
    stem = Path(ctx.data.data_dir) / "statistics" / name
    chosen = sorted(shuffled(len(images), "statistics")[:n])

    def first() -> Tensor:
        return extractor(images.pixels(chosen[:1]))

    found = read(stem, n, make(n), first) if ctx.devices.first else None
    if found is not None and isinstance(found, Moments) and not stem.with_name(f"{name}.npz").is_file():
        write(stem, found, first())
    if ctx.devices.gather(torch.tensor([found is not None])[: ctx.devices.first]).any():  # all go the same way
        return found or make(n), []

    kept, what = make(n), f"features of {split}"
    file = RowFile(stem.with_name(f"{name}.npy"), n, ctx.devices.world)
    file.lost = not isinstance(kept, Moments)  # those that are held are written at once

    def work(places: Sequence[int], advance: Callable[[], object]) -> tuple[Tensor, None]:
        rows = extractor(images.pixels([chosen[i] for i in places]))
        file.write(rows, places)
        advance()
        return rows, None

    ctx.reduce(range(n), work, kept, what, key=name)
    file.close()
    with file.gone_if_refused():
        ctx.refuse_rows(kept, what, no_cure(extractor), chosen)
    kept.together(ctx.devices)
    if ctx.devices.first:
        file.finish(kept.width)
    failed = write(stem, kept, first()) if ctx.devices.first and n > 1 else None
    return kept, [failed] if failed else []


def of_samples(
    ctx: EvalContext, path: Path | None, n: int, into: Kept, make: Callable[[Callable[[Tensor, Sequence[int]], None]], Kept]
) -> Kept:
    """Features of samples, reduced: from the file that another metric has left, or made and kept there.

    Args:
        ctx: whose samples.
        path: of the file; None: nothing is kept.
        n: how many samples.
        into: what takes them.
        make: features into `into`, given what is to be told of rows and their places; `together` follows.

    Returns:
        What took them, as of `of_split`.
    """
    if path is None:
        return make(lambda rows, places: None).together(ctx.devices)
    whole = ctx.devices.first and path.is_file() and holds(path, n)
    if ctx.devices.gather(torch.tensor([whole])[: ctx.devices.first]).any():
        if ctx.devices.first:
            log.info("sampling: the features of these samples are in %s.", path)
            into.fill(read_rows(path, n))
        ctx.count_calls()
        return into
    file = RowFile(path, n, ctx.devices.world)
    with file.gone_if_refused():
        kept = make(file.write)
    file.close()
    kept.together(ctx.devices)
    if ctx.devices.first:
        file.finish(kept.width)
    return kept


def holds(path: Path, n: int) -> bool:
    """Whether a file has n features that are finite; a line in the log where it is not whole."""
    try:
        return sum(map(len, read_rows(path, n))) == n
    except Exception as error:  # whatever its bytes make of NumPy
        log.info("%s is not whole (%s); the samples are drawn again.", path, type(error).__name__)
        return False
