"""net/likelihood=homoscedastic: one deviation of all pixels."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen.net.likelihood.gaussian import GaussianLikelihood


class Homoscedastic(GaussianLikelihood):
    """y = mean + std eps, where the network gives the mean, and the deviation is one learned number."""

    outputs = 1

    def __init__(self, min_std: float = 0.01):
        super().__init__(min_std)
        self.raw = nn.Parameter(torch.tensor(-2.0))

    def forward(self, outputs: Tensor) -> tuple[Tensor, ...]:
        """Mean and deviation, (..., C, H, W) each, from the mean."""
        return outputs, (self.min_std + F.softplus(self.raw)).expand_as(outputs)
