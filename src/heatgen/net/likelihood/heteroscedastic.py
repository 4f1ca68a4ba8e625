"""net/likelihood=heteroscedastic: a deviation of each pixel."""

import torch.nn.functional as F
from torch import Tensor

from heatgen.net.likelihood.gaussian import GaussianLikelihood


class Heteroscedastic(GaussianLikelihood):
    """y = mean + std eps, where the network gives the mean and the deviation of each pixel."""

    outputs = 2

    def forward(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """Mean and deviation, (..., C, H, W) each, from (..., 2 C, H, W)."""
        mean, raw = outputs.unflatten(-3, (self.outputs, -1)).unbind(-4)
        return mean, self.min_std + F.softplus(raw - 2)
