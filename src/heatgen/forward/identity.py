"""forward=identity: nothing happens. The control: a model can only denoise, and samples copy training images."""

import torch
from torch import Tensor

from heatgen import check
from heatgen.forward.levels import uniform
from heatgen.forward.process import ObservedProcess


class Identity(ObservedProcess):
    """u_t = u_0 + sigma eps, t = k / K."""

    def __init__(self, shape: tuple[int, ...], num_levels: int = 100, sigma: float = 0.01):
        super().__init__(shape, uniform(check.integer("forward.num_levels", num_levels, minimum=1)), sigma)

    def gain(self, t: Tensor) -> Tensor:
        """1, (B, 1, 1, 1)."""
        return torch.ones_like(self.column(t))
