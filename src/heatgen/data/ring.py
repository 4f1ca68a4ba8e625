"""data=ring: a circle in the plane, with a little noise."""

import math
from typing import Unpack

import torch
from torch import Tensor

from heatgen import check
from heatgen.data.points import Points, PointSettings, normal, uniform


class Ring(Points):
    """u_0 = radius (cos phi, sin phi) + std eps, phi uniform: (1, 1, 2).

    Args:
        radius: of the circle.
        std: of the noise, at least 0.
        extent: half the side of the square that pictures show.
        settings: those of `Points`.
    """

    def __init__(self, radius: float = 1.5, std: float = 0.05, extent: float = 2.5, **settings: Unpack[PointSettings]):
        super().__init__(dimension=2, extent=extent, **settings)
        self.radius = check.number("data.radius", radius, above=0)
        self.std = check.number("data.std", std, minimum=0)

    def draw(self, n: int, source: torch.Generator) -> Tensor:
        angle = 2 * math.pi * uniform((n,), source)
        return self.radius * torch.stack([angle.cos(), angle.sin()], dim=1) + self.std * normal((n, 2), source)
