"""forward=random_basis_heat: heat in a random basis. It forgets as fast as blur does, but knows nothing of space."""

from typing import Unpack

from heatgen import check
from heatgen.forward.basis import random
from heatgen.forward.heat import Heat, HeatOptions


class RandomBasisHeat(Heat):
    """u_t = Q diag(exp(-mu t)) Q^T u_0 + sigma eps: the singular values of forward=heat, mu = lambda, in a random basis Q.

    It is a semigroup, T(t) T(s) = T(t + s).

    Args:
        acts_on: rows_and_columns, Q = Q_H x Q_W with a uniformly random rotation of each axis; channel, one rotation of all
            H * W pixels of a channel.
        seed: of the rotations, which are in the checkpoint.
        options: levels and noise, as in `Heat`. For the others see `heatgen.forward`.
    Raises:
        ConfigError: for values out of range or a matrix too large.
    Source: the stable form of the linear-transformation fork's product of random matrices.
    """

    def __init__(
        self, shape: tuple[int, ...], acts_on: str = "rows_and_columns", seed: int = 0, **options: Unpack[HeatOptions]
    ):
        height, width = check.shape("data.shape", shape)[-2:]
        super().__init__(shape, basis=random(height, width, acts_on, seed, "forward"), **options)
