"""forward=variance_exploding: noise alone, ever more of it. The Euclidean heat kernel, on images."""

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.levels import blur_widths
from heatgen.forward.process import ForwardProcess


class VarianceExploding(ForwardProcess):
    """u_t = u_0 + sqrt(2 t) eps: the density of images spreads by the heat equation, p_t = exp(t Laplace) p_0.

    Clock: t = sigma^2 / 2 for noise of standard deviation sigma, the clock of a blur. Levels: evenly spaced in ln sigma.

    Args:
        num_levels: K, at least 2.
        sigma_min: the noise of level 1, on the scale of pixels in [0, 1].
        sigma_max: the noise of level K. For the others see `heatgen.forward`.
    Raises:
        ConfigError: for noises that do not ascend.
    Source: Song and Ermon 2019, section 3.2; Song et al. 2021, eq. 9.
    """

    def __init__(self, shape: tuple[int, ...], num_levels: int = 100, sigma_min: float = 0.01, sigma_max: float = 20.0):
        smallest = check.number("forward.sigma_min", sigma_min, above=0)
        largest = check.number("forward.sigma_max", sigma_max, above=0)
        if largest <= smallest:
            raise ConfigError(f"forward.sigma_max must be greater than forward.sigma_min = {smallest:g}, not {largest:g}.")
        noises = blur_widths(check.integer("forward.num_levels", num_levels, minimum=2), smallest, largest)
        super().__init__(shape, noises**2 / 2)

    def gain(self, t: Tensor) -> Tensor:
        """1, (B, 1, 1, 1)."""
        return torch.ones_like(self.column(t))

    def std(self, t: Tensor) -> Tensor:
        """sqrt(2 t), (B, 1, 1, 1)."""
        return (2 * self.column(t)).sqrt()

    def diffusion(self, t: Tensor) -> Tensor:
        """sqrt(2), also at t = 0, (B, 1, 1, 1)."""
        return torch.full_like(self.column(t), 2**0.5)
