"""forward=kinematics: every image is shifted by the same known amount. The control for b(t): it destroys nothing."""

import torch
from torch import Tensor

from heatgen.forward.polynomial import Polynomial


class Kinematics(Polynomial):
    """u_t = u_0 + v t + a t^2 / 2 + sigma eps, t = k / K: the same path for every image and pixel.

    Args:
        velocity: v, in pixel units over the whole way.
        acceleration: a, likewise. For the others see `heatgen.forward`.
    Source: the linear-transformation fork of inverse heat dissipation.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int = 100,
        sigma: float = 0.01,
        velocity: float = -1.0,
        acceleration: float = 0.0,
    ):
        super().__init__(shape, num_levels, sigma, velocity, acceleration)

    def gain(self, t: Tensor) -> Tensor:
        """1, (B, 1, 1, 1)."""
        return torch.ones_like(self.column(t))

    def offset(self, t: Tensor) -> Tensor:
        """v t + a t^2 / 2, (B, 1, 1, 1)."""
        return self.path(t)
