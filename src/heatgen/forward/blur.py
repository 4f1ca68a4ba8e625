"""forward/blur: what becomes of each coefficient of u_0, blur_i(t); blur(0) = 1. Widths are in pixels."""

import functools
import math

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.composed import Composed


def gaussian(process: Composed, width: Tensor, d_min: float) -> Tensor:
    """(1 - d_min) exp(-lambda_i w^2 / 2) + d_min: a blur of width w that leaves d_min of every mode.

    Source: Hoogeboom and Salimans 2023, section 4.
    """
    kept = (-process.waves("forward.blur").to(width) * width**2 / 2).exp()
    return kept + check.number("forward.blur.d_min", d_min, minimum=0, maximum=1) * (1 - kept)  # exactly 1 at w = 0


def sine(t: Tensor, process: Composed, sigma_max: float = 20.0, d_min: float = 0.001) -> Tensor:
    """A `gaussian` blur of w = sigma_max sin^2(pi t / 2) (Hoogeboom and Salimans 2023, section 4)."""
    widest = check.number("forward.blur.sigma_max", sigma_max, minimum=0, maximum=1e6)
    return gaussian(process, widest * (math.pi / 2 * t).sin() ** 2, d_min)


def power(t: Tensor, process: Composed, sigma_max: float = 2.12, exponent: float = 2.5, d_min: float = 0.001) -> Tensor:
    """A `gaussian` blur of w = sigma_max t^exponent, exponent >= 1.

    Source: Lee et al. 2022: D^F(t) with F ~ t^5, as in its released runs, is a width ~ t^2.5.
    """
    widest = check.number("forward.blur.sigma_max", sigma_max, minimum=0, maximum=1e6)
    return gaussian(process, widest * t ** check.number("forward.blur.exponent", exponent, minimum=1), d_min)


def noise(t: Tensor, process: Composed, ratio: float = 1.0, d_min: float = 0.001) -> Tensor:
    """A `gaussian` blur of w = ratio noise_scale(t): waves go where noise is above them already.

    Source: Warm Diffusion, arXiv 2511.16904, its blur-to-noise ratio in the natural reading.
    """
    bound = process.noise_scale
    if isinstance(bound, functools.partial) and bound.keywords.get("of") == "gain":
        raise ConfigError("forward/blur=noise follows the noise, so forward.noise_scale.of must be scale.")
    return gaussian(process, check.number("forward.blur.ratio", ratio, minimum=0, maximum=1e6) * bound(t, process), d_min)


def mask(t: Tensor, process: Composed, levels: int = 4, exponent: float = 0.5) -> Tensor:
    """1 for waves below 2^-j of the highest of each axis, 0 above, j = floor(levels (1 - (1 - t)^exponent)) < levels.

    What halving the resolution j times keeps, at full size. A(t) loses the waves that are cut.
    Source: Scale Space Diffusion, arXiv 2603.08709 (its schedule ConvexDecay).
    """
    levels = check.integer("forward.blur.levels", levels, minimum=2)
    if levels > (most := max(process.shape[-2:]).bit_length()):
        where = f"forward.blur.levels={levels} of forward={process.name}"
        raise ConfigError(f"{where} cuts more than there is; use {f'at most {most}' if most > 1 else 'larger fields'}.")
    j = (levels * (1 - (1 - t) ** check.number("forward.blur.exponent", exponent, above=0))).floor().clamp(max=levels - 1)
    waves = process.waves("forward.blur").to(t).sqrt() / math.pi  # of an axis: those in its first row or column
    return ((j == 0) | (torch.maximum(waves[:, :1], waves[:1]) < 0.5**j)).to(t)
