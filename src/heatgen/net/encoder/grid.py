"""net/encoder=grid: convolutions that keep the grid."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.net.layers import conv, spread
from heatgen.net.layout import Layout


class GridEncoder(nn.Module):
    """Convolutions that keep the grid: -> (B, R, H, W), translation equivariant but for the walls.

    Args:
        channels: of the convolutions. For the others see `EncoderFactory`.
    """

    layout = Layout.MAP
    reads_mask, needs_mask = True, False

    def __init__(self, shape: Sequence[int], features: int, width: int, channels: int):
        super().__init__()
        channels = check.integer("net.encoder.channels", channels, minimum=1)
        self.layers = nn.Sequential(
            conv(shape[0] + features, channels), nn.SiLU(), conv(channels, channels), nn.SiLU(), conv(channels, width)
        )

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        output: Tensor = self.layers(torch.cat([y, spread(features, y)], dim=1))
        return output
