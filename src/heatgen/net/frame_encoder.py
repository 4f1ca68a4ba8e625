"""What a neural process makes of one frame: a vector, or a map of vectors."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen.check import ConfigError

KINDS = ("flat", "conv", "grid")


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers of these widths with SiLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def conv(inputs: int, outputs: int, kernel_size: int = 3) -> nn.Conv2d:
    """A convolution that keeps H and W; beyond the edge stands the edge's own value, as beyond an insulating wall."""
    return nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, padding_mode="replicate")


def spread(numbers: Tensor, like: Tensor) -> Tensor:
    """Numbers (B, F) as constant channels of fields `like`, (B, F, H, W)."""
    return numbers[:, :, None, None].expand(-1, -1, *like.shape[-2:])


class FlatEncoder(nn.Module):
    """[numbers, y flattened] -> (B, R), a network of two hidden layers. shape: of y, (C, H, W); numbers: how many."""

    def __init__(self, shape: Sequence[int], numbers: int, width: int, hidden: int):
        super().__init__()
        self.layers = mlp(math.prod(shape) + numbers, hidden, hidden, width)

    def forward(self, y: Tensor, numbers: Tensor) -> Tensor:
        return self.layers(torch.cat([numbers, y.flatten(1)], dim=1))


class ConvEncoder(nn.Module):
    """Convolutions and pooling, flattened, and the numbers behind: -> (B, R). It forgets where things are only by layers.

    Two blocks of a 5 x 5 convolution, SiLU and a halving of both sides; without normalisation over the batch, which would
    let frames of one task see those of others. ConfigError for frames of fewer than 4 pixels a side.
    """

    def __init__(self, shape: Sequence[int], numbers: int, width: int, channels: int):
        super().__init__()
        if min(shape[-2:]) < 4:
            raise ConfigError(f"net.encoder=conv needs at least 4 pixels a side, not {shape[-2]} x {shape[-1]}; use flat.")
        self.first, self.second = conv(shape[0] + numbers, channels, 5), conv(channels, channels, 5)
        left = [size // 2 // 2 for size in shape[-2:]]
        self.leave = nn.Linear(channels * math.prod(left) + numbers, width)

    def forward(self, y: Tensor, numbers: Tensor) -> Tensor:
        h = torch.cat([y, spread(numbers, y)], dim=1)
        for layer in (self.first, self.second):
            h = F.max_pool2d(F.silu(layer(h)), 2)
        return self.leave(torch.cat([h.flatten(1), numbers], dim=1))


class GridEncoder(nn.Module):
    """Convolutions that keep the grid: -> (B, R, H, W), translation equivariant but for the walls."""

    def __init__(self, shape: Sequence[int], numbers: int, width: int, channels: int):
        super().__init__()
        self.layers = nn.Sequential(
            conv(shape[0] + numbers, channels), nn.SiLU(), conv(channels, channels), nn.SiLU(), conv(channels, width)
        )

    def forward(self, y: Tensor, numbers: Tensor) -> Tensor:
        return self.layers(torch.cat([y, spread(numbers, y)], dim=1))
