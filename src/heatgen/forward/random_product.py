"""forward=random_product: one more random matrix at every level, T_k = R_k ... R_1."""

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import haar_rotation
from heatgen.forward.matrix import MatrixProcess
from heatgen.noise import SampleNoise

FACTORS = ("haar", "near_identity")
DECAYS = {"none": lambda t: 1 + 0 * t, "velocity": lambda t: 1 - t, "deceleration": lambda t: (1 - t) ** 2}


class RandomProduct(MatrixProcess):
    """u_k = a_k R_k ... R_1 u_0 + sigma eps with independent random factors R_j and a decay a_k = a(k / K).

    The fork's own factors, R_j = G without scaling, grow as exp(1.65 k) for n = 28 and overflow; these are stable.

    Args:
        factors: haar, rotations drawn uniformly (condition number 1 at any depth); near_identity, (I + epsilon G / sqrt n) /
            sqrt(1 + epsilon^2) with Gaussian G (condition number about 18 for epsilon = 0.1 after 100).
        decay: deceleration (1 - t)^2 | velocity 1 - t | none.
        epsilon: of near_identity, how far from the identity a factor is.
        acts_on: rows | rows_and_columns | channel, see `MatrixProcess`; with rows_and_columns both axes have their own
            product, and the decay acts once.
        seed: of the factors. For the others see `heatgen.forward`.
    Raises:
        ConfigError: for values out of range or matrices too large.
    Source: the linear-transformation fork of inverse heat dissipation (fixed_random_alt), made stable.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int = 100,
        sigma: float = 0.01,
        factors: str = "haar",
        decay: str = "deceleration",
        epsilon: float = 0.1,
        acts_on: str = "rows",
        seed: int = 0,
    ):
        check.choice("forward.factors", factors, FACTORS)
        check.choice("forward.decay", decay, tuple(DECAYS))
        epsilon = check.number("forward.epsilon", epsilon, above=0)
        seed = check.integer("forward.seed", seed, minimum=0)

        def factor(gaussian: Tensor) -> Tensor:
            size = len(gaussian)
            if factors == "haar":
                return haar_rotation(gaussian)
            near: Tensor = (torch.eye(size, dtype=torch.float64) + epsilon * gaussian / size**0.5) / (1 + epsilon**2) ** 0.5
            return near

        def build(count: int, size: int, axis: str) -> Tensor:
            product = torch.eye(size, dtype=torch.float64)
            matrices = [product]
            for k in range(1, count + 1):
                rng = SampleNoise([k], seed, "random_product", axis)
                product = factor(rng.normal(size, size, dtype=torch.float64)[0]) @ product
                scale = 1.0 if axis == "columns" else DECAYS[decay](k / count)
                matrices.append(scale * product)
            return torch.stack(matrices)

        super().__init__(shape, num_levels, sigma, acts_on, build)
