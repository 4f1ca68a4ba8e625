"""data=gaussian_mixture, and its presets point and two_points: round Gaussians in R^d, with exact scores."""

import math
from collections.abc import Sequence
from typing import Unpack

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import Mixture
from heatgen.data.points import Points, PointSettings, normal


class GaussianMixture(Points):
    """u_0 ~ sum_m weights_m N(means_m, stds_m^2 I) in R^d.

    Args:
        dimension: d.
        means: (M, d), or None: `components` of them, evenly on a circle of `radius` in the first two coordinates (for d = 1
            evenly on [-radius, radius]; a single component is at the origin).
        components: M, where means is None.
        radius: of the circle.
        stds: one for all components, or one for each, at least 0; a component of 0 is a single point.
        weights: one for each, above 0, on any scale; None: equal.
        extent: half the side of the square that pictures show.
        settings: those of `Points`.
    Raises:
        ConfigError: for means, stds and weights that do not fit each other.
    """

    drawn_from_law = True

    def __init__(
        self,
        dimension: int = 2,
        means: Sequence[Sequence[float]] | None = None,
        components: int = 8,
        radius: float = 1.5,
        stds: float | Sequence[float] = 0.15,
        weights: Sequence[float] | None = None,
        extent: float = 2.5,
        **settings: Unpack[PointSettings],
    ):
        d = check.integer("data.dimension", dimension, minimum=1)
        count = check.integer("data.components", components, minimum=1)
        radius = check.number("data.radius", radius, minimum=0)
        places = around(count, radius, d) if means is None else parse_means(means, d)
        spread = parse_vector("data.stds", stds if isinstance(stds, (list, tuple)) else [stds] * len(places), len(places))
        shares = parse_vector("data.weights", [1.0] * len(places) if weights is None else weights, len(places))
        if (spread < 0).any() or (shares <= 0).any():
            raise ConfigError("data.stds must be at least 0 and data.weights greater than 0.")
        mixture = Mixture(shares / shares.sum(), places.reshape(-1, 1, 1, d), spread)
        super().__init__(dimension=d, extent=extent, mixture=mixture, **settings)

    def draw(self, n: int, source: torch.Generator) -> Tensor:
        assert self.spec.mixture is not None
        weights, means, stds = self.spec.mixture.weights, self.spec.mixture.means.flatten(1), self.spec.mixture.stds
        which = torch.multinomial(weights, n, replacement=True, generator=source)
        return means[which] + stds[which, None] * normal((n, self.dimension), source)


def around(count: int, radius: float, dimension: int) -> Tensor:
    """`count` places on a circle in the first two coordinates, on an interval where there is one; (count, d) float64."""
    places = torch.zeros(count, dimension, dtype=torch.float64)
    if count > 1 and dimension == 1:
        places[:, 0] = torch.linspace(-radius, radius, count, dtype=torch.float64)
    elif count > 1:
        angles = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
        places[:, 0], places[:, 1] = radius * angles.cos(), radius * angles.sin()
    return places


def parse_means(means: object, dimension: int) -> Tensor:
    """The means that a user wrote, (M, d) float64; ConfigError for anything else."""
    rows = means if isinstance(means, (list, tuple)) else []
    if not rows or not all(isinstance(row, (list, tuple)) and len(row) == dimension for row in rows):
        raise ConfigError(f"data.means must be a list of lists of data.dimension = {dimension} numbers, not {means!r}.")
    return torch.stack([parse_vector("data.means", row, dimension) for row in rows])


def parse_vector(key: str, values: object, count: int) -> Tensor:
    """The `count` finite numbers that a user wrote, (count,) float64; ConfigError for anything else."""
    if not isinstance(values, (list, tuple)) or len(values) != count:
        raise ConfigError(f"{key} must be {count} numbers, one for each component, not {values!r}.")
    return torch.tensor([check.number(key, value) for value in values], dtype=torch.float64)
