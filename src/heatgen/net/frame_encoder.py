"""What a neural process makes of one frame: a vector, a map of vectors, or a vector for each patch."""

import itertools
import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen.check import ConfigError

KINDS = ("flat", "conv", "grid", "set_conv", "patch", "heat")
MAPS = ("grid", "set_conv", "heat")  # those that keep the pixels where they are


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


class SetConvolution(nn.Module):
    """Scattered values to fields: density(x) = sum_s k(x, s), data(x) = sum_s k(x, s) y_s / (density(x) + eps), s: sensors.

    k(x, s) = exp(-|x - s|^2 / (2 l^2)) in pixels, as a matrix of every row to every row and one of the columns; l > 0 is
    learned, from 2 pixels on. It reaches everywhere and nothing beyond the edge comes back. values: (B, C, H, W); seen:
    (B, 1, H, W), 1 at sensors. Returns [data, density], (B, C + 1, H, W). Source: Gordon et al. 2020 (ConvCNP).
    """

    EPS = 1e-8

    def __init__(self, length: float = 2.0):
        super().__init__()
        self.log_length = nn.Parameter(torch.tensor(math.log(length)))

    def kernel(self, size: int) -> Tensor:
        """exp(-(i - j)^2 / (2 l^2)), (size, size)."""
        place = torch.arange(size).to(self.log_length)
        return torch.exp(-0.5 * ((place[:, None] - place) / self.log_length.exp()).square())

    def forward(self, values: Tensor, seen: Tensor) -> Tensor:
        rows, columns = (self.kernel(size).to(values) for size in values.shape[-2:])
        mass, density = (rows @ torch.cat([values * seen, seen], dim=1) @ columns).split([values.shape[1], 1], dim=1)
        return torch.cat([mass / (density + self.EPS), density], dim=1)


class SetConvEncoder(GridEncoder):
    """A set convolution of the sensors, then the convolutions of the grid: -> (B, R, H, W). y: [values, seen]."""

    def __init__(self, shape: Sequence[int], numbers: int, width: int, channels: int):
        super().__init__(shape, numbers, width, channels)
        self.spread = SetConvolution()

    def forward(self, y: Tensor, numbers: Tensor) -> Tensor:
        return super().forward(self.spread(y[:, :-1], y[:, -1:]), numbers)


def places(like: Tensor) -> Tensor:
    """Row and column of the centre of every cell of maps `like`, (..., H, W), between 0 and 1: (H, W, 2)."""
    rows, columns = ((torch.arange(size).to(like) + 0.5) / size for size in like.shape[-2:])
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)


class PatchEncoder(nn.Module):
    """[a patch of y, the numbers, its place] -> one token for each patch of p x p pixels, (B, R, H/p, W/p).

    A network of two hidden layers, the same for every patch. ConfigError where the patches do not tile the frame.
    """

    def __init__(self, shape: Sequence[int], numbers: int, width: int, hidden: int, patch: int):
        super().__init__()
        height, columns = shape[-2:]
        if height % patch or columns % patch:
            best = next(size for size in range(patch, 0, -1) if not (height % size or columns % size))
            raise ConfigError(
                f"net.patch = {patch} must divide both sides of frames of {height} x {columns} pixels; use net.patch={best}."
            )
        self.patch = patch
        self.layers = mlp(shape[0] * patch**2 + numbers + 2, hidden, hidden, width)

    def forward(self, y: Tensor, numbers: Tensor) -> Tensor:
        (b, c, height, columns), p = y.shape, self.patch
        cut = y.reshape(b, c, height // p, p, columns // p, p).permute(0, 2, 4, 1, 3, 5).flatten(3)  # (B, H/p, W/p, C p p)
        lead = cut.shape[:3]
        place = places(cut[..., 0]).expand(*lead, 2)
        said = torch.cat([cut, numbers[:, None, None].expand(*lead, -1), place], dim=-1)
        return self.layers(said).movedim(-1, 1)


class Frame(nn.Module):
    """The frame as it is, (B, C, H, W): for an aggregator that reads frames themselves."""

    def forward(self, y: Tensor, numbers: Tensor) -> Tensor:
        return y
