"""The one likelihood of every neural process: a Gaussian whose deviation has one named floor."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen import check

KINDS = ("heteroscedastic", "homoscedastic", "low_rank")


class Likelihood(nn.Module):
    """y = mean + std eps, std = min_std + softplus(raw): of each pixel, or (homoscedastic) one learned number.

    low_rank: y = mean + F e + std eps with rank numbers e ~ N(0, I) that all frames asked for share, so that the errors of
    pixels and frames go together: N(mean, F F^T + diag(std^2)), F a number of the network for each pixel and e.
    min_std: the least deviation; ln p <= -ln min_std - 0.92 for each dimension, so it should be well below the noise of the
    data, and is reported with every likelihood. `outputs`: how many numbers a pixel the network gives.
    Source: Markou et al. 2022 (Gaussian neural processes).
    """

    def __init__(self, kind: str = "heteroscedastic", min_std: float = 0.01, rank: int = 8):
        super().__init__()
        self.kind = check.choice("net.likelihood", kind, KINDS)
        self.min_std = check.number("net.min_std", min_std, above=0)
        rank = check.integer("net.rank", rank, minimum=1)
        self.outputs = {"heteroscedastic": 2, "homoscedastic": 1, "low_rank": 2 + rank}[kind]
        if kind == "homoscedastic":
            self.raw = nn.Parameter(torch.tensor(-2.0))

    def forward(self, numbers: Tensor) -> tuple[Tensor, ...]:
        """Mean and deviation, (..., C, H, W) each, and F, (..., C, H, W, rank), from (..., outputs x C, H, W)."""
        if self.kind == "homoscedastic":
            return numbers, (self.min_std + F.softplus(self.raw)).expand_as(numbers)
        mean, raw, *factors = numbers.unflatten(-3, (self.outputs, -1)).unbind(-4)
        std = self.min_std + F.softplus(raw - 2)
        return (mean, std, 0.1 * torch.stack(factors, -1)) if factors else (mean, std)
