"""data=grf: periodic Gaussian random fields with the power law |k|^-n, made in memory or read from HDF5 files.

`python -m heatgen.data.grf out=FOLDER` writes train.h5, val.h5 and test.h5. More keys, with their defaults: n=4
resolution=32 train=2500 val=500 test=500 seed=0 layout=contiguous (or published) dtype=float64 (or float32) overwrite=false.
"""

import functools
import logging
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.field_files import DTYPES, LAYOUTS, Facts, FieldFile, check_free, write_fields
from heatgen.data.fields import BLOCK, FieldArray, Normalised, Source, evenly, measured
from heatgen.data.images import ImageSet
from heatgen.data.module import SPLITS, DataModule, DataSettings, DataSpec
from heatgen.noise import generator
from heatgen.runtime import launch
from heatgen.runtime.explain import entry

log = logging.getLogger("heatgen")
LARGEST = 300.0  # decimal exponent of N^n, which must be a number
PUBLISHED_SUFFIX = {"train": "", "val": "_val", "test": "_test"}


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


class GRF(DataModule):
    """Gaussian random fields, (1, N, N), less the mean and over the standard deviation of all pixels of the train fields.

    P(k) = |k|^-n, periodic. Fields come from files or are made in memory when a split is first read. Those of files are said
    to have this law in some unit (`variances`), and are compared with it before exact answers rest on it (`data.law`).

    Args:
        n: the exponent of the power law, at least 0, and such that N^n is a number.
        resolution: N.
        train_size, val_size, test_size: fields of each split that are made in memory.
        data_seed: of those fields.
        path: a folder of train.h5, val.h5 and test.h5 (or 2d_gaussian_random_field_4.h5, ..._val.h5 and ..._test.h5, where
            n = 4), of as many fields as they hold; None: fields are made in memory.
        settings: those of `DataModule`; augment=None: only fields that are made in memory, which no turn changes in law.
    Raises:
        ConfigError: for values out of range and files that do not fit.
    """

    def __init__(
        self,
        n: float = 4.0,
        resolution: int = 32,
        train_size: int = 2500,
        val_size: int = 500,
        test_size: int = 500,
        data_seed: int = 0,
        path: str | None = None,
        **settings: Unpack[DataSettings],
    ):
        if settings.get("augment", False) is None:
            settings["augment"] = path is None
        super().__init__(**settings)
        self.n = check.number("data.n", n, minimum=0)
        self.resolution = check.integer("data.resolution", resolution, minimum=2)
        sizes = zip(SPLITS, (train_size, val_size, test_size), strict=True)
        self.sizes = {split: check.integer(f"data.{split}_size", size, minimum=1) for split, size in sizes}
        for split, size in self.sizes.items() if path is None else ():
            check.memory(f"data.{split}_size", size, 8 * self.resolution**2)
        self.data_seed = check.integer("data.data_seed", data_seed, minimum=0)
        self.path = None if path is None else Path(str(path)).expanduser().absolute()
        if self.n * math.log10(self.resolution) > LARGEST:
            steepest = math.floor(LARGEST / math.log10(self.resolution))
            raise ConfigError(
                f"data.n = {self.n:g} is too steep for data.resolution = {self.resolution}, as N^n is no number any more; "
                f"use data.n of at most {steepest}."
            )
        if self.spec.shape != (1, self.resolution, self.resolution):
            raise ConfigError(
                f"data.shape = {list(self.spec.shape)} must be [1, N, N] with N = data.resolution = {self.resolution}; "
                "set data.resolution alone."
            )
        self.spec = DataSpec(self.spec.shape, (-3.0, 3.0), "periodic", None, self.variances)
        self._sources: dict[str, Source] = {}

    def read(self, split: str) -> ImageSet:
        source = self.source(split)
        if self.path is not None and split != "train":
            self._compare(split, measured(source, evenly(len(source), self.resolution**2))[1])
        return Normalised(source, *self.statistics)

    def source(self, split: str) -> Source:
        """The fields of a split as they were made."""
        if split not in self._sources:
            self._sources[split] = self._made(split) if self.path is None else self._stored(split, self.path)
        return self._sources[split]

    @functools.cached_property
    def statistics(self) -> tuple[float, float]:
        """The mean and standard deviation of all pixels of the train fields, which normalise every split."""
        mean, std = self.source("train").moments()
        if not (std > 0 and np.isfinite([mean, std]).all()):
            where = "" if self.path is None else f" of data.path = {self.path}"
            raise ConfigError(f"The train fields{where} are all equal or not finite; use other fields.")
        return mean, std

    def variances(self) -> Tensor:
        """The variance of each coefficient of the normalised fields in the real Fourier basis, (1, N, N) float64.

        S_k = a P(k) / (N std)^2, as the unitary FFT is fft2 / N. What the law says, not what was measured: train_size fields
        are too few for each k. Its mean over k is 1 but for the sampling error of std, the measured deviation.
        """
        return torch.from_numpy(self.unit * power(self.n, self.resolution) / (self.resolution * self.statistics[1]) ** 2)[
            None
        ]

    @functools.cached_property
    def unit(self) -> float:
        """a, the power of the train fields in units of P: 1 in memory; of files the mean over all k of |fft2(x)_k|^2 / P(k).

        1 where that is 1 within five standard errors, sqrt(2 / number of coefficients) each: files of `heatgen.data.grf`.
        """
        if self.path is None:
            return 1.0
        source, law = self.source("train"), power(self.n, self.resolution)
        heard = law > 1e-8 * law.mean()
        part = evenly(len(source), self.resolution**2)
        total = 0.0
        for start in range(0, len(part), BLOCK):
            waves = np.abs(np.fft.fft2(source.raw(part[start : start + BLOCK]))) ** 2
            total += float((waves[:, heard] / law[heard]).sum())
        count = len(part) * int(heard.sum())
        found = total / count
        return 1.0 if abs(found - 1) < 5 * math.sqrt(2 / count) else found

    def _compare(self, split: str, std: float) -> None:
        """Say that a split has another scale than the train fields."""
        own = self.statistics[1]
        if len(self.source(split)) >= 8 and not own / 2 < std < own * 2 and launch.rank() == 0:
            note = (
                "Note: the %s fields of %s have a deviation of %.4g, and the train fields, which normalise all, one of %.4g."
            )
            log.warning(note, split, self.path, std, own)

    def _made(self, split: str) -> Source:
        indices = tqdm(range(self.sizes[split]), f"{split} fields", unit="field", leave=False, delay=2)
        return FieldArray(np.stack([draw_field(self.n, self.resolution, self.data_seed, split, i) for i in indices]))

    def _stored(self, split: str, folder: Path) -> Source:
        if folder.is_file():
            place = f"the folder that holds train.h5, val.h5 and test.h5, as data.path={folder.parent} if it is there"
            raise ConfigError(f"data.path = {folder} is a file; give {place}.")
        if not folder.is_dir():
            raise ConfigError(
                f"data.path = {folder} is not a folder; give the one that holds train.h5, val.h5 and test.h5 (python -m "
                f"heatgen.data.grf out={folder} makes one of synthetic fields)."
            )
        published = f"2d_gaussian_random_field_{self.n:g}{PUBLISHED_SUFFIX[split]}.h5"
        found = [path for name in (f"{split}.h5", published) if (path := folder / name).is_file()]
        if len(found) != 1:
            count = "both" if found else "neither"
            raise ConfigError(f"data.path = {folder} holds {count} of {split}.h5 and {published}; put one of them there.")
        file = FieldFile(found[0], self.resolution)
        if self.trust in ("check", "assume"):
            self._check_exponent(file)
        return file

    def _check_exponent(self, file: FieldFile) -> None:
        """ConfigError where a file says that it has another law."""
        if words := file.unreadable.get("n"):
            raise ConfigError(f"The attribute n of {file.path} is {words}; correct it, or delete it, and data.n counts.")
        if (n := file.facts.get("n", self.n)) != self.n:
            raise ConfigError(f"{file.path} holds fields of n = {n:g} and data.n is {self.n:g}; use data.n={n:g}.")


# the command -------------------------------------------------------------------------------------------------------------


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
    """Write the files of all splits; a file that is there stops it before it begins. ConfigError where it cannot."""
    folder, sizes = Path(request.out), {"train": request.train, "val": request.val, "test": request.test}
    for split in SPLITS:
        check_free(folder / f"{split}.h5", request.overwrite)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tqdm(total=sum(sizes.values()), unit="field") as bar:
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


if __name__ == "__main__":
    entry(lambda: sys.exit(main(sys.argv[1:])))
