"""forward=random_basis_heat: heat in a random basis. It forgets as fast as blur does, but knows nothing of space."""

from typing import Unpack

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import Basis, Orthogonal, Separable, haar_rotation
from heatgen.forward.heat import Heat, HeatOptions
from heatgen.forward.matrix import check_memory
from heatgen.noise import SampleNoise

ACTS_ON = ("rows_and_columns", "channel")


class RandomBasisHeat(Heat):
    """u_t = Q diag(exp(-mu t)) Q^T u_0 + sigma eps: the singular values of forward=heat, mu = lambda, in a random basis Q.

    It is a semigroup, T(t) T(s) = T(t + s).

    Args:
        shape: (C, H, W).
        acts_on: rows_and_columns, Q = Q_H x Q_W with a uniformly random rotation of each axis; channel, one rotation of all
            H * W pixels of a channel.
        seed: of the rotations, which are in the checkpoint.
        options: levels and noise, as in `Heat`.
    Raises:
        ConfigError: for values out of range or a matrix too large.
    Source: the stable form of the linear-transformation fork's product of random matrices.
    """

    def __init__(
        self, shape: tuple[int, ...], acts_on: str = "rows_and_columns", seed: int = 0, **options: Unpack[HeatOptions]
    ):
        check.choice("forward.acts_on", acts_on, ACTS_ON)
        seed = check.integer("forward.seed", seed, minimum=0)
        height, width = check.shape("data.shape", shape)[-2:]

        def rotation(size: int, axis: str) -> Tensor:
            rng = SampleNoise([0], seed, "random_basis_heat", axis)
            return haar_rotation(rng.normal(size, size, dtype=torch.float64)[0])

        basis: Basis
        if acts_on == "channel":
            check_memory("forward.acts_on=channel", 1, [height * width], "use forward.acts_on=rows_and_columns")
            basis = Orthogonal(rotation(height * width, "channel"))
        else:
            basis = Separable(rotation(height, "rows"), rotation(width, "columns"), persistent=True)
        super().__init__(shape, basis=basis, **options)
