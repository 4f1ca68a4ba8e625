"""Points of R^d drawn from a law: what the small vector data sets have in common."""

from typing import Unpack

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.images import ImageSet, Pixels
from heatgen.data.module import SPLITS, DataModule, DataSettings, DataSpec, Mixture
from heatgen.noise import generator


class PointSettings(DataSettings, total=False):
    """The settings that every set of points takes; see `Points`."""

    train_size: int
    val_size: int
    test_size: int
    data_seed: int


class Points(DataModule):
    """Points of R^d as fields of shape (1, 1, d), drawn from (data_seed, split) alone; nothing is read from a file.

    An author writes `draw(n, source)`.

    Args:
        dimension: d.
        extent: half the side of the square that pictures show.
        train_size, val_size, test_size: points of each split.
        data_seed: of the points.
        mixture: the law, where it is one of round Gaussians.
        settings: those of `DataModule`.
    Raises:
        ConfigError: for values out of range, and a shape that is not [1, 1, d].
    """

    def __init__(
        self,
        dimension: int,
        extent: float,
        train_size: int = 10_000,
        val_size: int = 2_000,
        test_size: int = 2_000,
        data_seed: int = 0,
        mixture: Mixture | None = None,
        **settings: Unpack[DataSettings],
    ):
        super().__init__(**settings)
        self.dimension = check.integer("data.dimension", dimension, minimum=1)
        sizes = zip(SPLITS, (train_size, val_size, test_size), strict=True)
        self.sizes = {split: check.integer(f"data.{split}_size", size, minimum=1) for split, size in sizes}
        for split, size in self.sizes.items():
            check.memory(f"data.{split}_size", size, 8 * self.dimension)
        self.data_seed = check.integer("data.data_seed", data_seed, minimum=0)
        if self.spec.shape != (1, 1, self.dimension):
            raise ConfigError(f"data.shape = {list(self.spec.shape)} must be [1, 1, {self.dimension}] for points of R^d.")
        extent = check.number("data.extent", extent, above=0)
        self.spec = DataSpec(self.spec.shape, (-extent, extent), bits=None, mixture=mixture)

    def draw(self, n: int, source: torch.Generator) -> Tensor:
        """n points of the law, (n, d) float64."""
        raise NotImplementedError

    def read(self, split: str) -> ImageSet:
        points = self.draw(self.sizes[split], generator("points", self.data_seed, split))
        return Pixels(points.float().reshape(-1, *self.spec.shape))


def uniform(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    """Numbers uniform on [0, 1), float64."""
    return torch.rand(shape, generator=source, dtype=torch.float64)


def normal(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    """Standard normal numbers, float64."""
    return torch.randn(shape, generator=source, dtype=torch.float64)
