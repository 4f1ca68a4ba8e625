"""forward/blur: what becomes of each coefficient of u_0, blur_i(t); blur(0) = 1."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.part import Part, option

if TYPE_CHECKING:
    from heatgen.forward.composed import Composed


@dataclass(eq=False)
class Blur(Part):
    """(1 - d_min) exp(-lambda_i w^2 / 2) + d_min: a Gaussian blur of width w(t) pixels, which an author writes.

    Args:
        d_min: what blur leaves of every mode, in [0, 1].
    Source: Hoogeboom and Salimans 2023, section 4.
    """

    d_min: float = option(0.001, check.number, minimum=0, maximum=1)
    uses_waves = True

    def width(self, t: Tensor, process: "Composed") -> Tensor:
        """w(t), (B, 1, 1, 1); 0 at t = 0."""
        raise NotImplementedError

    def forward(self, t: Tensor, process: "Composed") -> Tensor:
        kept = (-process.eigenvalues.to(t) * self.width(t, process) ** 2 / 2).exp()
        return kept + self.d_min * (1 - kept)  # 1 at t = 0 without rounding


@dataclass(eq=False)
class Sine(Blur):
    """A blur of w = sigma_max sin^2(pi t / 2).

    Args:
        sigma_max: the widest blur, in pixels.
    Source: Hoogeboom and Salimans 2023, section 4.
    """

    sigma_max: float = option(20.0, check.number, minimum=0)

    def width(self, t: Tensor, process: "Composed") -> Tensor:
        return self.sigma_max * (math.pi / 2 * t).sin() ** 2


@dataclass(eq=False)
class Power(Blur):
    """A blur of w = sigma_max t^exponent.

    Args:
        sigma_max: the widest blur, in pixels.
        exponent: at least 1.
    Source: Lee et al. 2022: D^F(t) with F ~ t^5, as in its released runs, is a width ~ t^2.5.
    """

    sigma_max: float = option(2.12, check.number, minimum=0)
    exponent: float = option(2.5, check.number, minimum=1)

    def width(self, t: Tensor, process: "Composed") -> Tensor:
        return self.sigma_max * t**self.exponent


@dataclass(eq=False)
class Noise(Blur):
    """A blur of w = ratio noise_scale(t): waves go where noise is above them already.

    Args:
        ratio: the blur-to-noise ratio, in pixels for a noise of 1; 0: no blur.
    Source: Warm Diffusion, arXiv 2511.16904; the natural reading of its ratio.
    """

    ratio: float = option(1.0, check.number, minimum=0)

    def attach(self, process: "Composed") -> None:
        super().attach(process)
        if getattr(process.noise_scale, "of", "") == "gain":
            raise ConfigError("forward/blur=noise follows the noise, so forward.noise_scale.of must be scale.")

    def width(self, t: Tensor, process: "Composed") -> Tensor:
        return self.ratio * process.noise_scale(t, process)


@dataclass(eq=False)
class Mask(Part):
    """1 for waves below 2^-j of the highest of each axis, 0 above; j = floor(levels (1 - (1 - t)^exponent)) < levels.

    What halving the resolution j times keeps, at full size. A(t) loses the waves that are cut.

    Args:
        levels: how many resolutions there are, at least 2.
        exponent: above 0; below 1, resolution falls late.
    Source: Scale Space Diffusion, arXiv 2603.08709 (its schedule ConvexDecay).
    """

    levels: int = option(4, check.integer, minimum=2)
    exponent: float = option(0.5, check.number, above=0)
    uses_waves = True

    def attach(self, process: "Composed") -> None:
        super().attach(process)
        if self.levels > (most := max(process.shape[-2:]).bit_length()):
            where = f"{self.key}.levels={self.levels} of forward={process.name}"
            raise ConfigError(
                f"{where} cuts more than there is; " + (f"use at most {most}." if most > 1 else "use larger fields.")
            )

    def forward(self, t: Tensor, process: "Composed") -> Tensor:
        j = (self.levels * (1 - (1 - t) ** self.exponent)).floor().clamp(max=self.levels - 1)
        waves = process.eigenvalues.to(t).sqrt() / math.pi  # of an axis: those in its first row or column
        return ((j == 0) | (torch.maximum(waves[:, :1], waves[:1]) < 0.5**j)).to(t)
