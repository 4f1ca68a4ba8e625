"""Features of data sets, kept in data_dir/statistics: made again where a file is not whole, only made where none can be."""

import hashlib
import logging
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heatgen.data.images import shuffled
from heatgen.metric.context import EvalContext
from heatgen.metric.extractor import Extractor
from heatgen.runtime.files import atomic_path

log = logging.getLogger("heatgen")


def check_sum(text: str) -> str:
    """A short hash of a text."""
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def read(path: Path, n: int) -> Tensor | None:
    """The features (n, F) float32 in a file; None without one, or, with a line in the log, where it holds anything else."""
    try:
        if not path.is_file():
            return None
        with path.open("rb") as file:
            array = np.load(file, allow_pickle=False)
        whole = isinstance(array, np.ndarray) and array.dtype == np.float32 and array.ndim == 2 and len(array) == n
        if whole and array.shape[1] > 0 and bool(np.isfinite(array).all()):
            return torch.from_numpy(np.ascontiguousarray(array))
        reason = "it holds something else"
    except Exception as error:  # whatever its bytes make of NumPy: it is a cache
        reason = f"{type(error).__name__}: {error}"
    log.info("%s is not whole (%s); the features are made again.", path, reason)
    return None


def write(path: Path, features: Tensor) -> str | None:
    """Keep features (n, F); a sentence where the file cannot be written."""
    try:
        with atomic_path(path) as beside, beside.open("wb") as file:
            np.save(file, features.numpy())
    except OSError as error:
        reason = error.strerror or str(error)
        return f"features of the data cannot be kept in {path.parent} ({reason}), and are made anew each time."
    return None


def no_cure(extractor: Extractor) -> str:
    """What to do where features are not finite."""
    return f"{extractor.name} gives no finite features of them; use another metric.extractor or metric.weights"


def agrees(kept: Tensor, first: Tensor) -> bool:
    """Whether kept features (n, F) are those that were asked for: the first row is what the first image has, (1, F)."""
    return kept.shape[1] == first.shape[1] and bool((kept[:1] - first).abs().max() <= 1e-3 * first.abs().max())


def features_of_split(ctx: EvalContext, extractor: Extractor, split: str, n: int | None) -> tuple[Tensor, list[str]]:
    """Features (n, F) of n images of a split, a fixed random choice, from their file or made and kept; and what went wrong.

    A file is believed if the features of its first image, made anew, are in it.

    Args:
        ctx: whose data.
        extractor: of the features.
        split: of the data.
        n: how many images; None: all.

    Raises:
        ConfigError: features that are not finite.
    """
    images = ctx.data.images(split)
    n = len(images) if n is None else min(n, len(images))
    name = f"{ctx.data_name}_{split}_{n}_{images.fingerprint()}_{check_sum(extractor.name)}.npy"
    path = Path(ctx.data.data_dir) / "statistics" / name
    chosen = sorted(shuffled(len(images), "statistics")[:n])
    kept = read(path, n)
    if kept is not None and not agrees(kept, extractor(images.pixels(chosen[:1]))):
        log.info("%s holds features of something else; they are made again.", path)
        kept = None
    if ctx.devices.gather(torch.tensor([kept is not None])).all():  # all processes take the same way
        assert kept is not None
        return kept, []
    what = f"features of {split}"
    features = ctx.each(chosen, lambda batch: extractor(images.pixels(batch)), what, fix=no_cure(extractor))
    failed = write(path, features) if ctx.devices.first else None
    return features, [failed] if failed else []
