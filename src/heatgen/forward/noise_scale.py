"""forward/noise_scale: the noise of all coefficients alike, noise_scale(t); noise_scale(0) = 0.

Papers have data in [-1, 1], here they are in [0, 1]: factor=0.5 gives papers' ratios of signal to noise.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.levels import blur_widths
from heatgen.forward.part import Part, option

if TYPE_CHECKING:
    from heatgen.forward.composed import Composed


@dataclass(eq=False)
class Preserving(Part):
    """factor sqrt(1 - x^2), x the scale or, of each coefficient, the gain: factor 1 keeps the variance of data that have 1.

    Args:
        of: scale | gain, what x is.
        factor: of the noise, above 0.
    Source: Ho et al. 2020, eq. 4 (scale); Lee et al. 2022, "Progressive Deblurring of Diffusion Models" (gain).
    """

    of: str = option("scale", check.choice, options=("scale", "gain"))
    factor: float = option(1.0, check.number, above=0)

    def attach(self, process: "Composed") -> None:
        if process.scale is None and (process.blur is None or self.of == "scale"):
            raise ConfigError(f"{self.key}=preserving needs a scale; choose forward/scale, or another forward/noise_scale.")

    def forward(self, t: Tensor, process: "Composed") -> Tensor:
        kept = process._product(t.double().flatten(), process.scale, process.blur if self.of == "gain" else None)
        return self.factor * (1 - kept**2).clamp(min=0).sqrt().to(t)  # in float64: float32 loses it near t = 0


@dataclass(eq=False)
class Flow(Part):
    """factor t, the noise of flow matching.

    Args:
        factor: of the noise, above 0.
    Source: Lipman et al. 2023, eq. 20.
    """

    factor: float = option(1.0, check.number, above=0)

    def forward(self, t: Tensor, process: "Composed") -> Tensor:
        return self.factor * t


@dataclass(eq=False)
class Exploding(Part):
    """sqrt(2 t), on the clock t = sigma^2 / 2; levels 1 .. K have noises sigma evenly spaced in log.

    Args:
        sigma_min, sigma_max: the noise of level 1 and of level K, on the scale of pixels in [0, 1].
    Source: Song et al. 2021, eq. 9; Karras et al. 2022, table 1.
    """

    sigma_min: float = option(0.01, check.number, above=0)
    sigma_max: float = option(20.0, check.number, above=0)

    def times(self, num_levels: int) -> Tensor:
        """sigma^2 / 2."""
        if self.sigma_max <= self.sigma_min:
            raise ConfigError(f"{self.key}.sigma_max must be greater than sigma_min = {self.sigma_min:g}.")
        return (
            blur_widths(check.integer("forward.num_levels", num_levels, minimum=2), self.sigma_min, self.sigma_max) ** 2 / 2
        )

    def forward(self, t: Tensor, process: "Composed") -> Tensor:
        return (2 * t).sqrt()


@dataclass(eq=False)
class Lognormal(Part):
    """factor exp(mean + deviation Phi^-1(share t)): for uniform t, ln of the noise is normal, but for the largest noises.

    Args:
        mean, deviation: of ln of the noise, before the factor.
        share: how much of the normal law there is up to level K, in (0, 1).
        factor: of the noise, above 0.
    Source: Teng et al. 2024 (Relay Diffusion).
    """

    mean: float = option(-1.2, check.number, minimum=-10, maximum=10)
    deviation: float = option(1.2, check.number, above=0, maximum=10)
    share: float = option(0.93, check.number, above=0, maximum=0.999999)
    factor: float = option(1.0, check.number, above=0)

    def forward(self, t: Tensor, process: "Composed") -> Tensor:
        return self.factor * (self.mean + self.deviation * torch.special.ndtri(self.share * t)).exp()
