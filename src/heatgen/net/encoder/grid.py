"""net/encoder=grid: convolutions that keep the grid."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.net.layers import conv, spread
from heatgen.net.layout import Layout


class GridEncoder(nn.Module):
    """Convolutions that keep the grid: -> (B, R, H, W), translation equivariant but for the walls."""

    layout = Layout.MAP
    reads_mask, needs_mask = True, False

    def __init__(self, shape: Sequence[int], features: int, width: int, channels: int):
        """Make the layers.

        Args:
            shape: of y, (C', H, W): a channel of observed pixels included, where there is one.
            features: how many numbers stand beside a frame: its time, and those of the map.
            width: R.
            channels: of the convolutions.

        Raises:
            ConfigError: an option is out of range.
        """
        super().__init__()
        channels = check.integer("net.encoder.channels", channels, minimum=1)
        self.layers = nn.Sequential(
            conv(shape[0] + features, channels), nn.SiLU(), conv(channels, channels), nn.SiLU(), conv(channels, width)
        )

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        """Encode frames by themselves.

        Args:
            y: frames, (B, C', H, W).
            features: (B, F).

        Returns:
            (B, R, H, W).
        """
        output: Tensor = self.layers(torch.cat([y, spread(features, y)], dim=1))
        return output
