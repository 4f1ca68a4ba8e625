"""Periodic Gaussian random fields with the power law |k|^-n, and the command that writes files of them.

`python -m heatgen.data.grf out=FOLDER` writes train.h5, val.h5 and test.h5. More keys, with their defaults: n=4
resolution=32 train=2500 val=500 test=500 seed=0 layout=contiguous (or published) dtype=float64 (or float32) overwrite=false.
"""

import functools
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.field_files import DTYPES, LAYOUTS, Facts, check_free, write_fields
from heatgen.data.module import SPLITS
from heatgen.noise import generator
from heatgen.runtime import claim


@functools.lru_cache
def power(n: float, resolution: int) -> np.ndarray:
    """P(k) = |k|^-n with k in cycles/pixel, P(0) = 0; (N, N) float64."""
    k = np.fft.fftfreq(resolution)
    size = np.hypot(k[:, None], k[None, :])
    size[0, 0] = 1
    result: np.ndarray = size**-n
    result[0, 0] = 0
    return result


def draw_field(n: float, resolution: int, seed: int, split: str, index: int) -> np.ndarray:
    """Field `index` of a split, Re ifft2(z sqrt(P)), (N, N) float64, from (seed, split, index) alone.

    z = a + i b with a, b ~ N(0, 1), independent at every k of the full grid, so E|fft2(x)_k|^2 = P(k), also where k = -k.
    Source: the generator of the fields of Holzschuh et al. 2023 (score matching via differentiable physics).
    """
    a, b = torch.randn(
        2, resolution, resolution, generator=generator("grf", seed, split, index), dtype=torch.float64
    ).numpy()
    return np.ascontiguousarray(np.fft.ifft2((a + 1j * b) * np.sqrt(power(n, resolution))).real)


@dataclass(frozen=True)
class FileRequest:
    """The keys of the command line: the files to write."""

    out: str = ""  # the folder
    n: float = 4.0
    resolution: int = 32
    train: int = 2500  # fields of each split
    val: int = 500
    test: int = 500
    seed: int = 0
    layout: str = "contiguous"
    dtype: str = "float64"
    overwrite: bool = False


def parsed(text: str) -> bool | int | float | str:
    """A word of the command line as true, false, a number or itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def read_arguments(arguments: Sequence[str]) -> FileRequest:
    """The request of key=value words. ConfigError for an unknown key or a value out of range."""
    values: dict[str, object] = {field.name: field.default for field in fields(FileRequest)}
    for word in arguments:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word} cannot be read; write key=value, such as out=FOLDER.")
        if key not in values:
            raise ConfigError(f"{key} is not a key{check.did_you_mean(key, values)} (keys: {', '.join(values)}).")
        values[key] = value if key == "out" else parsed(value)
    if not values["out"]:
        raise ConfigError("out is missing; give the folder for the files as out=FOLDER.")
    return FileRequest(
        out=str(values["out"]),
        n=check.number("n", values["n"], minimum=0),
        resolution=check.integer("resolution", values["resolution"], minimum=2),
        train=check.integer("train", values["train"], minimum=1),
        val=check.integer("val", values["val"], minimum=1),
        test=check.integer("test", values["test"], minimum=1),
        seed=check.integer("seed", values["seed"], minimum=0),
        layout=check.choice("layout", values["layout"], LAYOUTS),
        dtype=check.choice("dtype", values["dtype"], DTYPES),
        overwrite=check.boolean("overwrite", values["overwrite"]),
    )


def write(request: FileRequest) -> None:
    """Write the files of all splits; a file that is there stops it before it begins, and so does another process at it.

    Raises:
        ConfigError: it cannot.
    """
    folder, sizes = Path(request.out), {"train": request.train, "val": request.val, "test": request.test}
    try:
        with alone(folder, request.overwrite), tqdm(total=sum(sizes.values()), unit="field") as bar:
            for split, size in sizes.items():
                bar.set_description(split)
                facts: Facts = {"n": request.n, "seed": request.seed, "split": split}
                made = _make(request, split, size, bar)
                layout = (request.resolution, request.layout, request.dtype)
                write_fields(folder / f"{split}.h5", made, size, *layout, facts, request.overwrite)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error}); choose another folder or free some space.") from error
    for split, size in sizes.items():
        path = folder / f"{split}.h5"
        fields_of = f"{size} fields of {request.resolution}x{request.resolution}, {request.dtype}, {request.layout}"
        print(f"written: {path} ({fields_of}, {path.stat().st_size / 1e6:.1f} MB)")


@contextmanager
def alone(folder: Path, overwrite: bool) -> Iterator[None]:
    """Keep a folder of fields to this process, so that its splits are those of one law; the lock goes at the end."""
    paths = [folder / f"{split}.h5" for split in SPLITS]
    for path in paths:
        check_free(path, overwrite)  # before anything is made
    folder.mkdir(parents=True, exist_ok=True)
    with claim.lock(folder, "is being written"):
        try:
            for path in paths:
                check_free(path, overwrite)
            yield
        finally:
            (folder / claim.LOCK).unlink(missing_ok=True)


def _make(request: FileRequest, split: str, size: int, bar: "tqdm[None]") -> Iterator[np.ndarray]:
    for i in range(size):
        yield draw_field(request.n, request.resolution, request.seed, split, i)
        bar.update()


def main(arguments: Sequence[str]) -> int:
    """The command; its exit code."""
    if {"-h", "--help"} & set(arguments):
        print(__doc__)
        return 0
    try:
        write(read_arguments(arguments))
    except ConfigError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0
