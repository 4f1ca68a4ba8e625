"""data=checkerboard: every second square of a board, filled evenly."""

from typing import Unpack

import torch
from torch import Tensor

from heatgen import check
from heatgen.data.points import Points, PointSettings, uniform


class Checkerboard(Points):
    """u_0 uniform on the dark squares of a board, (1, 1, 2): square (i, j) from the lower left is dark where i + j is even.

    Args:
        squares: along each side of the board.
        radius: half the side of the board.
        extent: half the side of the square that pictures show.
        settings: those of `Points`.
    """

    def __init__(self, squares: int = 4, radius: float = 2.0, extent: float = 2.5, **settings: Unpack[PointSettings]):
        super().__init__(dimension=2, extent=extent, **settings)
        self.squares = check.integer("data.squares", squares, minimum=2)
        self.radius = check.number("data.radius", radius, above=0)

    def draw(self, n: int, source: torch.Generator) -> Tensor:
        board = torch.arange(self.squares)
        dark = torch.cartesian_prod(board, board)
        dark = dark[dark.sum(1) % 2 == 0]
        corner = dark[torch.randint(len(dark), (n,), generator=source)]
        return self.radius * (2 * (corner + uniform((n, 2), source)) / self.squares - 1)
