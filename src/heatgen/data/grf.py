"""data=grf: periodic Gaussian random fields with the power law |k|^-n, made in memory or read from HDF5 files.

`python -m heatgen.data.grf` writes such files (`heatgen.data.grf_fields`).
"""

import functools
import logging
import math
import shlex
import sys
from pathlib import Path
from typing import Unpack

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.field_files import FieldFile
from heatgen.data.fields import BLOCK, FieldArray, Normalised, Source, evenly, measured
from heatgen.data.grf_fields import draw_field, main, power
from heatgen.data.images import ImageSet
from heatgen.data.module import SPLITS, DataModule, DataSettings, DataSpec
from heatgen.runtime import ranks
from heatgen.runtime.explain import entry
from heatgen.runtime.files import absolute

log = logging.getLogger("heatgen")
LARGEST = 300.0  # decimal exponent of N^n, which must be a number
PUBLISHED_SUFFIX = {"train": "", "val": "_val", "test": "_test"}


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
        self.path = None if path is None else absolute(str(path))
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
            std, own = measured(source, evenly(len(source), self.resolution**2))[1], self.statistics[1]
            if len(source) >= 8 and not own / 2 < std < own * 2 and ranks.rank() == 0:
                note = (
                    "Note: the %s fields of %s have a deviation of %.4g, and the train fields, which normalise all, one of"
                )
                log.warning(f"{note} %.4g.", split, self.path, std, own)
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

    def _made(self, split: str) -> Source:
        indices = tqdm(range(self.sizes[split]), f"{split} fields", unit="field", leave=False, delay=2)
        return FieldArray(np.stack([draw_field(self.n, self.resolution, self.data_seed, split, i) for i in indices]))

    def _stored(self, split: str, folder: Path) -> Source:
        if folder.is_file():
            place = f"the folder that holds train.h5, val.h5 and test.h5, as data.path={folder.parent} if it is there"
            raise ConfigError(f"data.path = {folder} is a file; give {place}.")
        if not folder.is_dir():
            words = shlex.join([f"out={folder}", f"n={self.n:g}", f"resolution={self.resolution}"])
            raise ConfigError(
                f"data.path = {folder} is not a folder; give the one that holds train.h5, val.h5 and test.h5 (python -m "
                f"heatgen.data.grf {words} makes one of synthetic fields)."
            )
        published = f"2d_gaussian_random_field_{self.n:g}{PUBLISHED_SUFFIX[split]}.h5"
        found = [path for name in (f"{split}.h5", published) if (path := folder / name).is_file()]
        if len(found) != 1:
            count = "both" if found else "neither"
            raise ConfigError(f"data.path = {folder} holds {count} of {split}.h5 and {published}; put one of them there.")
        file = FieldFile(found[0], self.resolution)
        if self.trust in ("check", "assume"):  # whose law is that of data.n
            if wrong := file.unreadable.get("n"):
                raise ConfigError(f"The attribute n of {file.path} is {wrong}; correct it, or delete it, and data.n counts.")
            if (n := file.facts.get("n", self.n)) != self.n:
                raise ConfigError(f"{file.path} holds fields of n = {n:g} and data.n is {self.n:g}; use data.n={n:g}.")
        return file


if __name__ == "__main__":
    entry(lambda: sys.exit(main(sys.argv[1:])))
