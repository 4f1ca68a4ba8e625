"""net/encoder=flat: a frame as one vector, fully connected."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.net.layers import mlp
from heatgen.net.layout import Layout


class FlatEncoder(nn.Module):
    """[features, y flattened] -> (B, R), a network of two hidden layers."""

    layout = Layout.VECTOR
    reads_mask, needs_mask = True, False

    def __init__(self, shape: Sequence[int], features: int, width: int, hidden: int):
        """Make the layers.

        Args:
            shape: of y, (C', H, W): a channel of observed pixels included, where there is one.
            features: how many numbers stand beside a frame: its time, and those of the map.
            width: R.
            hidden: width of the hidden layers.

        Raises:
            ConfigError: an option is out of range.
        """
        super().__init__()
        hidden = check.integer("net.encoder.hidden", hidden, minimum=1)
        self.layers = mlp(math.prod(shape) + features, hidden, hidden, width)

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        """Encode frames by themselves.

        Args:
            y: frames, (B, C', H, W).
            features: (B, F).

        Returns:
            (B, R).
        """
        output: Tensor = self.layers(torch.cat([features, y.flatten(1)], dim=1))
        return output
