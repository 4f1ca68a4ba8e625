"""forward=polynomial: every pixel moves with any initial velocity and any constant acceleration."""

import warnings

from torch import Tensor

from heatgen import check
from heatgen.forward.levels import uniform
from heatgen.forward.process import ObservedProcess


class Polynomial(ObservedProcess):
    """u_t = (1 + v t + a t^2 / 2) u_0 + sigma eps, t = k / K.

    (v, a) = (-1, 0) is constant velocity, (-2, 2) constant deceleration, and (-1, 2) the reversal: down to 3/4 and back to
    u_0, which destroys nothing.

    Args:
        velocity: v, in units of u_0 over the whole way.
        acceleration: a, likewise. For the others see `heatgen.forward`.
    Source: the linear-transformation fork of inverse heat dissipation.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int = 100,
        sigma: float = 0.01,
        velocity: float = -1.0,
        acceleration: float = 2.0,
    ):
        super().__init__(shape, uniform(check.integer("forward.num_levels", num_levels, minimum=1)), sigma)
        self.velocity = check.number("forward.velocity", velocity)
        self.acceleration = check.number("forward.acceleration", acceleration)

    def path(self, t: Tensor) -> Tensor:
        """v t + a t^2 / 2, (B, 1, 1, 1)."""
        time = self.column(t)
        return self.velocity * time + self.acceleration / 2 * time**2

    def gain(self, t: Tensor) -> Tensor:
        """1 + v t + a t^2 / 2, (B, 1, 1, 1)."""
        return 1 + self.path(t)

    def validate(self) -> None:
        """As for every map; warns where the image passes through 0 on the way and returns inverted."""
        super().validate()
        if self.gain(self.times).min() < 0:
            warnings.warn("forward=polynomial passes through 0 and goes on to negative images.", stacklevel=2)
