"""Spacings of the levels t_0 < t_1 < ... < t_K of a forward process: functions that give K+1 float64 numbers from 0."""

import torch
from torch import Tensor


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
