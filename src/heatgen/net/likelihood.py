"""The one likelihood of every neural process: a Gaussian whose deviation has one named floor."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen import check

KINDS = ("heteroscedastic", "homoscedastic")


class Likelihood(nn.Module):
    """y ~ N(mean, std^2), std = min_std + softplus(raw): of each pixel, or (homoscedastic) one learned number.

    min_std: the least deviation; ln p <= -ln min_std - 0.92 for each dimension, so it should be well below the noise of the
    data, and is reported with every likelihood. `outputs`: how many numbers a pixel the network gives.
    """

    def __init__(self, kind: str = "heteroscedastic", min_std: float = 0.01):
        super().__init__()
        self.kind = check.choice("net.likelihood", kind, KINDS)
        self.min_std = check.number("net.min_std", min_std, above=0)
        self.outputs = 2 if kind == "heteroscedastic" else 1
        if kind == "homoscedastic":
            self.raw = nn.Parameter(torch.tensor(-2.0))

    def forward(self, numbers: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and deviation, (..., C, H, W) each, from the network's (..., outputs x C, H, W)."""
        if self.kind == "homoscedastic":
            return numbers, (self.min_std + F.softplus(self.raw)).expand_as(numbers)
        mean, raw = numbers.chunk(2, dim=-3)
        return mean, self.min_std + F.softplus(raw - 2)
