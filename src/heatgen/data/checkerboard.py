"""data=checkerboard: every second square of a board, filled evenly."""

from typing import Any

import torch
from torch import Tensor

from heatgen import check
from heatgen.data.points import Points, uniform


class Checkerboard(Points):
    """u_0 uniform on the dark squares of a board of squares x squares, of half side `radius`: (1, 1, 2).

    Square (i, j), counted from the lower left corner, is dark where i + j is even.
    """

    def __init__(self, squares: int = 4, radius: float = 2.0, extent: float = 2.5, **settings: Any):
        super().__init__(dimension=2, extent=extent, **settings)
        self.squares = check.integer("data.squares", squares, minimum=2)
        self.radius = check.number("data.radius", radius, above=0)

    def draw(self, n: int, source: torch.Generator) -> Tensor:
        board = torch.arange(self.squares)
        dark = torch.cartesian_prod(board, board)
        dark = dark[dark.sum(1) % 2 == 0]
        corner = dark[torch.randint(len(dark), (n,), generator=source)]
        return self.radius * (2 * (corner + uniform((n, 2), source)) / self.squares - 1)
