"""forward=constant_deceleration: every pixel fades to 0, ever more slowly, and comes to rest there."""

import warnings

from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.levels import uniform
from heatgen.forward.process import ObservedProcess

LITERAL = (
    "forward.literal=true is the displacement (u_t - u_0) / u_0 without the identity, so A(0) = 0 != I and the network "
    "never sees the data"
)


class ConstantDeceleration(ObservedProcess):
    """u_t = (1 - t)^2 u_0 + sigma eps, t = k / K: velocity -2 u_0 at first, acceleration 2 u_0, at rest in 0 at t = 1.

    Seen as noise on the image, sigma / (1 - t)^2 grows as in a variance-exploding process. literal: t^2 - t in place of
    (1 - t)^2, as the linear-transformation fork wrote it; validate() refuses it unless allow_invalid. shape: (C, H, W).
    ConfigError for values out of range. Source: that fork of inverse heat dissipation.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int = 100,
        sigma: float = 0.01,
        literal: bool = False,
        allow_invalid: bool = False,
    ):
        super().__init__(shape, uniform(check.integer("forward.num_levels", num_levels, minimum=1)), sigma)
        self.literal = check.boolean("forward.literal", literal)
        self.allow_invalid = check.boolean("forward.allow_invalid", allow_invalid)

    def gain(self, t: Tensor) -> Tensor:
        """(1 - t)^2, or literally t^2 - t; (B, 1, 1, 1)."""
        time = self.column(t)
        return time**2 - time if self.literal else (1 - time) ** 2

    def _check_start(self, gap: float) -> None:
        if self.literal and not self.allow_invalid:
            raise ConfigError(f"{LITERAL}; remove it, or add forward.allow_invalid=true to study it all the same.")
        if self.literal:
            warnings.warn(f"{LITERAL}.", stacklevel=3)
        else:
            super()._check_start(gap)
