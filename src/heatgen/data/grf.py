"""data=grf: periodic Gaussian random fields with the power law |k|^-n, made in memory or read from HDF5 files.

`python -m heatgen.data.grf out=FOLDER` writes train.h5, val.h5 and test.h5. More keys, with their defaults: n=4
resolution=32 train=2500 val=500 test=500 seed=0 layout=contiguous (or published) dtype=float64 (or float32) overwrite=false.
"""

import functools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.fields import DTYPES, LAYOUTS, FieldArray, FieldFile, Normalised, Source, check_free, write_fields
from heatgen.data.images import ImageSet
from heatgen.data.module import SPLITS, DataModule, DataSpec
from heatgen.noise import generator

PUBLISHED_SUFFIX = {"train": "", "val": "_val", "test": "_test"}
DEFAULTS: dict[str, Any] = {  # of the command
    "out": None,
    "n": 4.0,
    "resolution": 32,
    "train": 2500,
    "val": 500,
    "test": 500,
    "seed": 0,
    "layout": "contiguous",
    "dtype": "float64",
    "overwrite": False,
}


@functools.lru_cache
def power(n: float, resolution: int) -> np.ndarray:
    """P(k) = |k|^-n with k in cycles/pixel, P(0) = 0; (N, N) float64."""
    k = np.fft.fftfreq(resolution)
    size = np.hypot(k[:, None], k[None, :])
    size[0, 0] = 1
    result = size**-n
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

    P(k) = |k|^-n, periodic. path: a folder of train.h5, val.h5 and test.h5 (or 2d_gaussian_random_field_4.h5, ..._val.h5
    and ..._test.h5, where n = 4), of as many fields as they hold; None: train_size, val_size and test_size fields are made
    in memory when they are first asked for, from data_seed. ConfigError for values out of range and files that do not fit.
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
        **settings: Any,
    ):
        super().__init__(**settings)
        self.n = check.number("data.n", n, minimum=0)
        self.resolution = check.integer("data.resolution", resolution, minimum=2)
        sizes = zip(SPLITS, (train_size, val_size, test_size), strict=True)
        self.sizes = {split: check.integer(f"data.{split}_size", size, minimum=1) for split, size in sizes}
        self.data_seed = check.integer("data.data_seed", data_seed, minimum=0)
        self.path = None if path is None else Path(str(path))
        if self.spec.shape != (1, self.resolution, self.resolution):
            raise ConfigError(
                f"data.shape = {list(self.spec.shape)} must be [1, N, N] with N = data.resolution = {self.resolution}; "
                "set data.resolution alone."
            )
        self.spec = DataSpec(self.spec.shape, (-3.0, 3.0), "periodic", None, self.variances)
        self._sources: dict[str, Source] = {}

    def read(self, split: str) -> ImageSet:
        return Normalised(self.source(split), *self.statistics)

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
            raise ConfigError(f"The train fields of data.path = {self.path} are all equal or not finite; give others.")
        return mean, std

    def variances(self) -> Tensor:
        """The variance of each coefficient of the normalised fields in the real Fourier basis, (1, N, N) float64.

        S_k = P(k) / (N std)^2, as the unitary FFT is fft2 / N. What the law says, not what was measured: train_size fields
        are too few for each k.
        """
        return torch.from_numpy(power(self.n, self.resolution) / (self.resolution * self.statistics[1]) ** 2)[None]

    def _made(self, split: str) -> Source:
        numbers = tqdm(range(self.sizes[split]), f"{split} fields", unit="field", leave=False, delay=2)
        return FieldArray(np.stack([draw_field(self.n, self.resolution, self.data_seed, split, i) for i in numbers]))

    def _stored(self, split: str, folder: Path) -> Source:
        if not folder.is_dir():
            raise ConfigError(
                f"data.path = {folder} is not a folder; write one with python -m heatgen.data.grf out={folder}."
            )
        published = f"2d_gaussian_random_field_{self.n:g}{PUBLISHED_SUFFIX[split]}.h5"
        found = [path for name in (f"{split}.h5", published) if (path := folder / name).is_file()]
        if len(found) != 1:
            count = "both" if found else "neither"
            raise ConfigError(f"data.path = {folder} holds {count} of {split}.h5 and {published}; put one of them there.")
        file = FieldFile(found[0], self.resolution)
        if (n := file.facts.get("n", self.n)) != self.n:
            raise ConfigError(f"{found[0]} holds fields of n = {n:g} and data.n is {self.n:g}; use data.n={n:g}.")
        return file


# the command -------------------------------------------------------------------------------------------------------------


def parsed(text: str) -> Any:
    """A word of the command line as true, false, a number or itself."""
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def read_arguments(arguments: Sequence[str]) -> dict[str, Any]:
    """The settings of key=value words, checked. ConfigError for an unknown key or a value out of range."""
    settings = dict(DEFAULTS)
    for word in arguments:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word} cannot be read; write key=value, such as out=FOLDER.")
        if key not in DEFAULTS:
            raise ConfigError(f"{key} is not a key{check.did_you_mean(key, DEFAULTS)} (keys: {', '.join(DEFAULTS)}).")
        settings[key] = value if key == "out" else parsed(value)
    if not settings["out"]:
        raise ConfigError("out is missing; give the folder for the files as out=FOLDER.")
    settings["n"] = check.number("n", settings["n"], minimum=0)
    for key, minimum in {"resolution": 2, "train": 1, "val": 1, "test": 1, "seed": 0}.items():
        settings[key] = check.integer(key, settings[key], minimum=minimum)
    check.choice("layout", settings["layout"], LAYOUTS)
    check.choice("dtype", settings["dtype"], DTYPES)
    check.boolean("overwrite", settings["overwrite"])
    return settings


def write(settings: dict[str, Any]) -> None:
    """The files of all splits, as `read_arguments` gives the settings; a file that is there stops it before it begins."""
    folder, n, resolution, seed = Path(settings["out"]), settings["n"], settings["resolution"], settings["seed"]
    for split in SPLITS:
        check_free(folder / f"{split}.h5", settings["overwrite"])
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tqdm(total=sum(settings[split] for split in SPLITS), unit="field") as bar:
            for split in SPLITS:
                bar.set_description(split)

                def fields(split: str = split) -> Iterator[np.ndarray]:
                    for i in range(settings[split]):
                        yield draw_field(n, resolution, seed, split, i)
                        bar.update()

                facts = {"n": n, "seed": seed, "split": split}
                options = (settings["layout"], settings["dtype"], facts, settings["overwrite"])
                write_fields(folder / f"{split}.h5", fields(), settings[split], resolution, *options)
    except OSError as error:
        raise ConfigError(f"{folder} cannot be written ({error}); choose another folder or free space.") from error
    for split in SPLITS:
        path = folder / f"{split}.h5"
        size = f"{settings[split]} fields of {resolution}x{resolution}, {settings['dtype']}, {settings['layout']}"
        print(f"written: {path} ({size}, {path.stat().st_size / 1e6:.1f} MB)")


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
    sys.exit(main(sys.argv[1:]))
