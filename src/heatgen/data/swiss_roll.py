"""data=swiss_roll: a spiral in the plane, with a little noise."""

import math
from typing import Unpack

import torch
from torch import Tensor

from heatgen import check
from heatgen.data.points import Points, PointSettings, normal, uniform


class SwissRoll(Points):
    """u_0 = radius r / r_1 (cos r, sin r) + std eps, r uniform on [3 pi / 2, r_1 = 9 pi / 2]: (1, 1, 2).

    The spiral of scikit-learn's `make_swiss_roll` seen from its axis.

    Args:
        radius: the outer radius of the spiral.
        std: of the noise, at least 0.
        extent: half the side of the square that pictures show.
        settings: those of `Points`.
    """

    def __init__(self, radius: float = 2.0, std: float = 0.05, extent: float = 2.5, **settings: Unpack[PointSettings]):
        super().__init__(dimension=2, extent=extent, **settings)
        self.radius = check.number("data.radius", radius, above=0)
        self.std = check.number("data.std", std, minimum=0)

    def draw(self, n: int, source: torch.Generator) -> Tensor:
        angle = 1.5 * math.pi * (1 + 2 * uniform((n,), source))
        points = torch.stack([angle * angle.cos(), angle * angle.sin()], dim=1)
        return self.radius / (4.5 * math.pi) * points + self.std * normal((n, 2), source)
