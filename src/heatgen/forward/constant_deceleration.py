"""forward=constant_deceleration: every pixel fades to 0, ever more slowly, and comes to rest there."""

from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.levels import uniform
from heatgen.forward.process import ObservedProcess


class ConstantDeceleration(ObservedProcess):
    """u_t = (1 - t)^2 u_0 + sigma eps, t = k / K: velocity -2 u_0 at first, acceleration 2 u_0, at rest in 0 at t = 1.

    Seen as noise on the image, sigma / (1 - t)^2 grows as in a variance-exploding process.

    Args:
        literal: always false. true is t^2 - t in place of (1 - t)^2, as the linear-transformation fork wrote it.
            For the others see `heatgen.forward`.
    Raises:
        ConfigError: for values out of range, and for literal=true, whose A(0) is 0.
    Source: the linear-transformation fork of inverse heat dissipation.
    """

    def __init__(self, shape: tuple[int, ...], num_levels: int = 100, sigma: float = 0.01, literal: bool = False):
        super().__init__(shape, uniform(check.integer("forward.num_levels", num_levels, minimum=1)), sigma)
        if check.boolean("forward.literal", literal):
            raise ConfigError(
                "forward.literal=true is the displacement t^2 - t = (u_t - u_0) / u_0 without the identity, so "
                "A(0) = 0 != I and the network would never see the data; remove it."
            )

    def gain(self, t: Tensor) -> Tensor:
        """(1 - t)^2, (B, 1, 1, 1)."""
        return (1 - self.column(t)) ** 2
