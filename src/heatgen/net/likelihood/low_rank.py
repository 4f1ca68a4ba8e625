"""net/likelihood=low_rank: errors of pixels and frames that go together."""

import torch
import torch.nn.functional as F
from torch import Tensor

from heatgen import check
from heatgen.net.likelihood.gaussian import GaussianLikelihood


class LowRank(GaussianLikelihood):
    """y = mean + F e + std eps, e ~ N(0, I) of `rank` numbers that all target frames share: N(mean, F F^T + diag(std^2)).

    F is a number of the network for each pixel and each of e. Source: Markou et al. 2022 (Gaussian neural processes).
    """

    def __init__(self, min_std: float = 0.01, rank: int = 8):
        super().__init__(min_std)
        self.outputs = 2 + check.integer("net.likelihood.rank", rank, minimum=1)

    def forward(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """Mean and deviation, (..., C, H, W) each, and F, (..., C, H, W, rank), from (..., (2 + rank) C, H, W)."""
        mean, raw, *factors = outputs.unflatten(-3, (self.outputs, -1)).unbind(-4)
        return mean, self.min_std + F.softplus(raw - 2), 0.1 * torch.stack(factors, -1)
