"""Spacings of the levels t_0 < t_1 < ... < t_K of a forward process: functions that give K+1 float64 numbers from 0."""

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError


def uniform(num_levels: int, end: float = 1.0) -> Tensor:
    """t_k = end * k / K, (K+1,)."""
    return torch.linspace(0, end, num_levels + 1, dtype=torch.float64)


def blur_widths(num_levels: int, smallest: float, largest: float) -> Tensor:
    """Blur widths sigma_B: 0, then K widths from `smallest` to `largest` pixels, evenly spaced in log; (K+1,).

    Source: Rissanen et al. 2023, section 3.
    """
    ends = torch.tensor([smallest, largest], dtype=torch.float64).log()
    widths = torch.lerp(ends[0], ends[1], torch.linspace(0, 1, num_levels, dtype=torch.float64)).exp()
    return torch.cat([torch.zeros(1, dtype=torch.float64), widths])


def exploding(num_levels: int, sigma_min: float = 0.01, sigma_max: float = 20.0) -> Tensor:
    """t = sigma^2 / 2 for 0 and K noises sigma, evenly spaced in log from sigma_min to sigma_max; (K+1,)."""
    low = check.number("forward.levels.sigma_min", sigma_min, above=0)
    if check.number("forward.levels.sigma_max", sigma_max, above=0, maximum=1e12) <= low:
        raise ConfigError(f"forward.levels.sigma_max must be greater than sigma_min = {low:g}, not {sigma_max:g}.")
    return blur_widths(check.integer("forward.num_levels", num_levels, minimum=2), low, sigma_max) ** 2 / 2


def power(num_levels: int, end: float = 1.0, exponent: float = 2.0) -> Tensor:
    """t_k = end (k / K)^exponent: finer near 0 for an exponent above 1, (K+1,)."""
    return end * torch.linspace(0, 1, num_levels + 1, dtype=torch.float64) ** exponent


def logarithmic(num_levels: int, end: float = 1.0, offset: float = 0.1) -> Tensor:
    """t_k = end log(1 + end k / (K offset)) / log(1 + end / offset): coarser near 0, (K+1,).

    Source: the released code of Holzschuh et al. 2023 (its logarithmic time).
    """
    scaled = torch.log1p(uniform(num_levels, end) / offset)
    return end * scaled / scaled[-1]


SPACINGS = {"uniform": uniform, "log": logarithmic, "quadratic": power}  # of maps whose `spacing` is an option
