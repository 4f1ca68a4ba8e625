"""net/encoder=flat: a frame as one vector, fully connected."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.net.layers import mlp
from heatgen.net.layout import Layout


class FlatEncoder(nn.Module):
    """[features, y flattened] -> (B, R), a network of two hidden layers.

    Args:
        hidden: width of the hidden layers. For the others see `EncoderFactory`.
    """

    layout = Layout.VECTOR
    reads_mask, needs_mask = True, False

    def __init__(self, shape: Sequence[int], features: int, width: int, hidden: int):
        super().__init__()
        hidden = check.integer("net.encoder.hidden", hidden, minimum=1)
        self.layers = mlp(math.prod(shape) + features, hidden, hidden, width)

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        output: Tensor = self.layers(torch.cat([features, y.flatten(1)], dim=1))
        return output
