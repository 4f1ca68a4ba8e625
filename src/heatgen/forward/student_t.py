"""forward=student_t: noise alone, of a size that is drawn for each sample and hidden: a multivariate Student-t. PFGM++."""

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.levels import blur_widths
from heatgen.forward.process import ForwardProcess
from heatgen.noise import SampleNoise

MOST = 65536  # degrees of freedom, each a normal number for each sample; there the noise is Gaussian but for 0.3 %


class StudentT(ForwardProcess):
    """u_t = u_0 + sigma(t) R eps, R = sqrt(D / chi^2_D) of each sample: Student-t noise with D degrees of freedom.

    Its density falls as (1 + |u_t - u_0|^2 / (D sigma^2))^{-(D + N) / 2} in N dimensions. Neither the network nor a sampler
    knows R: E[u_0 | u_t] is an average over it, and the flow du / d sigma = (u - E[u_0 | u_t]) / sigma is exact without it,
    while the score and Gaussian reverse steps are not. Clock and levels are those of variance_exploding, sigma = sqrt(2 t).
    Before a draw it is variance_exploding, as it is with degrees_of_freedom=None (D -> infinity).

    Args:
        shape: (C, H, W).
        num_levels: K, at least 2.
        sigma_min: the noise of level 1, on the scale of pixels in [0, 1].
        sigma_max: the noise of level K.
        degrees_of_freedom: D, 1 to 65536; None: Gaussian noise.
    Raises:
        ConfigError: for values out of range.
    Source: Xu et al. 2023 (PFGM++), section 3 and proposition 1, with r = sigma sqrt(D).
    """

    size: Tensor  # R, (1, 1) before a draw, (B, 1) after it

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int = 100,
        sigma_min: float = 0.001,
        sigma_max: float = 40.0,
        degrees_of_freedom: int | None = 2048,
    ):
        smallest = check.number("forward.sigma_min", sigma_min, above=0)
        largest = check.number("forward.sigma_max", sigma_max, above=0)
        if largest <= smallest:
            raise ConfigError(f"forward.sigma_max must be greater than forward.sigma_min = {smallest:g}, not {largest:g}.")
        noises = blur_widths(check.integer("forward.num_levels", num_levels, minimum=2), smallest, largest)
        super().__init__(shape, noises**2 / 2)
        self.degrees: int | None = None
        if degrees_of_freedom is not None:
            key = "forward.degrees_of_freedom"
            self.degrees = check.integer(key, degrees_of_freedom, minimum=1)
            if self.degrees > MOST:
                raise ConfigError(f"{key} must be at most {MOST}, not {self.degrees}; null is the limit, Gaussian noise.")
        self.is_random = self.withholds_cond = self.random_noise_only = self.degrees is not None
        self.register_buffer("size", torch.ones(1, 1, dtype=torch.float64), persistent=False)

    def draw(self, rng: SampleNoise) -> Tensor | None:
        """R of each sample, (B, 1) float64, from D normal numbers; None for Gaussian noise."""
        if self.degrees is None:
            return None
        return (self.degrees / rng.normal(self.degrees).double().square().sum(1, keepdim=True)).sqrt()

    def bind(self, draws: Tensor | None) -> ForwardProcess:
        """The map with noise of these sizes."""
        return self if draws is None else self._with_buffer("size", draws.to(self.times))

    def gain(self, t: Tensor) -> Tensor:
        """1, (B, 1, 1, 1)."""
        return torch.ones_like(self.column(t))

    def std(self, t: Tensor) -> Tensor:
        """R sqrt(2 t), (B, 1, 1, 1)."""
        return self.column(self.size.to(t)) * (2 * self.column(t)).sqrt()

    def diffusion(self, t: Tensor) -> Tensor:
        """R sqrt(2), also at t = 0, (B, 1, 1, 1)."""
        return self.column(self.size.to(t)) * torch.full_like(self.column(t), 2**0.5)
