"""net/decoder=flat: from a vector to a frame, fully connected."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.net.layers import mlp
from heatgen.net.layout import Layout


class FlatDecoder(nn.Module):
    """[features, representation (B, R)] -> outputs x (C, H, W), a network of three hidden layers.

    Args:
        hidden: width of the hidden layers. For the others see `DecoderFactory`.
    """

    layout = Layout.VECTOR

    def __init__(self, shape: Sequence[int], features: int, extra: int, width: int, outputs: int, hidden: int):
        super().__init__()
        hidden = check.integer("net.decoder.hidden", hidden, minimum=1)
        self.shape = (outputs * shape[0], *shape[1:])
        self.layers = mlp(width + features + extra, hidden, hidden, hidden, math.prod(self.shape))

    def forward(self, r: Tensor, features: Tensor) -> Tensor:
        output: Tensor = self.layers(torch.cat([features, r], dim=1)).reshape(-1, *self.shape)
        return output
