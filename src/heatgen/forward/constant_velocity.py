"""forward=constant_velocity: every pixel fades to 0 at a constant speed."""

from torch import Tensor

from heatgen import check
from heatgen.forward.levels import uniform
from heatgen.forward.process import ObservedProcess


class ConstantVelocity(ObservedProcess):
    """u_t = (1 - t) u_0 + sigma eps, t = k / K: velocity -u_0 until all is 0 at t = 1.

    Level K is pure noise, so nothing of a training image is left.

    Source: the linear-transformation fork of inverse heat dissipation.
    """

    def __init__(self, shape: tuple[int, ...], num_levels: int = 100, sigma: float = 0.01):
        super().__init__(shape, uniform(check.integer("forward.num_levels", num_levels, minimum=1)), sigma)

    def gain(self, t: Tensor) -> Tensor:
        """1 - t, (B, 1, 1, 1)."""
        return 1 - self.column(t)
