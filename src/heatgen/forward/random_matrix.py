"""forward=random_matrix: another random matrix at every level."""

import torch
from torch import Tensor

from heatgen import check
from heatgen.forward.matrix import MatrixProcess
from heatgen.noise import SampleNoise


class RandomMatrix(MatrixProcess):
    """u_k = T_k u_0 + sigma eps, T_k of independent N(0, 1/n) entries, so that |T_k u| = |u| in expectation; T_0 = I.

    Levels have nothing in common: the network learns K inverses. Condition numbers are about 2 n.

    Args:
        acts_on: rows | rows_and_columns | channel, see `MatrixProcess`.
        seed: of the matrices. For the others see `heatgen.forward`.
    Raises:
        ConfigError: for values out of range or matrices too large.
    Source: the linear-transformation fork of inverse heat dissipation (fixed_random), scaled.
    """

    def __init__(
        self, shape: tuple[int, ...], num_levels: int = 100, sigma: float = 0.01, acts_on: str = "rows", seed: int = 0
    ):
        seed = check.integer("forward.seed", seed, minimum=0)

        def build(count: int, size: int, axis: str) -> Tensor:
            rng = SampleNoise(range(count + 1), seed, "random_matrix", axis)
            matrices = rng.normal(size, size, dtype=torch.float64).div_(size**0.5)
            torch.eye(size, out=matrices[0])
            return matrices

        super().__init__(shape, num_levels, sigma, acts_on, build)
