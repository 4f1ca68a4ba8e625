"""net/decoder=grid: from maps to a frame, by convolutions."""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from heatgen import check
from heatgen.net.layers import conv, mlp, spread
from heatgen.net.layout import Layout


class GridDecoder(nn.Module):
    """Convolutions of the maps (B, R, H, W), scaled and shifted by the features (FiLM) -> (B, outputs x C, H, W).

    Four residual layers of 3 x 3, dilated by 1, 2, 4 and 1; the features, such as the time, act on all pixels alike.

    Args:
        channels: of the convolutions. For the others see `DecoderFactory`.

    Source: Perez et al. 2018 (FiLM).
    """

    DILATIONS = (1, 2, 4, 1)
    layout = Layout.MAP

    def __init__(self, shape: Sequence[int], features: int, extra: int, width: int, outputs: int, channels: int):
        super().__init__()
        channels = check.integer("net.decoder.channels", channels, minimum=1)
        self.in_conv = conv(width, channels)
        self.layers = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d, padding_mode="replicate") for d in self.DILATIONS
        )
        self.film = mlp(features + extra, channels, 2 * channels * len(self.DILATIONS))
        self.out_conv = nn.Conv2d(channels, outputs * shape[0], 1)

    def forward(self, r: Tensor, features: Tensor) -> Tensor:
        h = self.in_conv(r)
        films = self.film(features).chunk(len(self.layers), dim=1)
        for layer, film in zip(self.layers, films, strict=True):
            gamma, beta = (spread(x, h) for x in film.chunk(2, dim=1))
            h = h + F.silu((1 + gamma) * layer(h) + beta)
        output: Tensor = self.out_conv(h)
        return output
