"""What a neural process says of a frame: its mean and how sure it is, from a representation and a time."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen.net.frame_encoder import conv, mlp, spread


class FlatDecoder(nn.Module):
    """[numbers, representation (B, R)] -> outputs x (C, H, W), a network of three hidden layers."""

    def __init__(self, shape: Sequence[int], numbers: int, width: int, hidden: int, outputs: int):
        super().__init__()
        self.shape = (outputs * shape[0], *shape[1:])
        self.layers = mlp(width + numbers, hidden, hidden, hidden, math.prod(self.shape))

    def forward(self, r: Tensor, numbers: Tensor) -> Tensor:
        return self.layers(torch.cat([numbers, r], dim=1)).reshape(-1, *self.shape)


class GridDecoder(nn.Module):
    """Convolutions of the maps (B, R, H, W), scaled and shifted by the numbers (FiLM) -> (B, outputs x C, H, W).

    Four residual layers of 3 x 3, dilated by 1, 2, 4 and 1; the numbers, such as the time, act on all pixels alike.
    Source: Perez et al. 2018 (FiLM).
    """

    DILATIONS = (1, 2, 4, 1)

    def __init__(self, shape: Sequence[int], numbers: int, width: int, channels: int, outputs: int):
        super().__init__()
        self.enter = conv(width, channels)
        self.layers = nn.ModuleList(
            nn.Conv2d(channels, channels, 3, padding=d, dilation=d, padding_mode="replicate") for d in self.DILATIONS
        )
        self.film = mlp(numbers, channels, 2 * channels * len(self.DILATIONS))
        self.leave = nn.Conv2d(channels, outputs * shape[0], 1)

    def forward(self, r: Tensor, numbers: Tensor) -> Tensor:
        h = self.enter(r)
        told = self.film(numbers).chunk(len(self.layers), dim=1)
        for layer, told_layer in zip(self.layers, told, strict=True):
            gamma, beta = (spread(x, h) for x in told_layer.chunk(2, dim=1))
            h = h + F.silu((1 + gamma) * layer(h) + beta)
        return self.leave(h)


class PatchDecoder(nn.Module):
    """[a token, the numbers] -> its patch of p x p pixels, put together: (B, R, H/p, W/p) -> outputs x (C, H, W).

    A network of two hidden layers, the same for every patch.
    """

    def __init__(self, shape: Sequence[int], numbers: int, width: int, hidden: int, outputs: int, patch: int):
        super().__init__()
        self.patch = patch
        self.layers = mlp(width + numbers, hidden, hidden, outputs * shape[0] * patch**2)

    def forward(self, r: Tensor, numbers: Tensor) -> Tensor:
        said = torch.cat([r, spread(numbers, r)], dim=1).movedim(1, -1)
        return F.pixel_shuffle(self.layers(said).movedim(-1, 1), self.patch)
