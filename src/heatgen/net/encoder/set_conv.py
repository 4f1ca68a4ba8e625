"""net/encoder=set_conv: a set convolution of scattered sensors, then convolutions that keep the grid."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatgen.net.encoder.grid import GridEncoder


class SetConvolution(nn.Module):
    """Scattered values to fields: density(x) = sum_s k(x, s), data(x) = sum_s k(x, s) y_s / (density(x) + eps), s: sensors.

    k(x, s) = exp(-|x - s|^2 / (2 l^2)) in pixels, as a matrix of every row to every row and one of the columns; l > 0 is
    learned, from 2 pixels on. It reaches everywhere and nothing beyond the edge comes back. values: (B, C, H, W); mask:
    (B, 1, H, W), 1 at sensors. Returns [data, density], (B, C + 1, H, W). Source: Gordon et al. 2020 (ConvCNP).
    """

    EPS = 1e-8

    def __init__(self, length: float = 2.0):
        super().__init__()
        self.log_length = nn.Parameter(torch.tensor(math.log(length)))

    def kernel(self, size: int) -> Tensor:
        """exp(-(i - j)^2 / (2 l^2)), (size, size)."""
        place = torch.arange(size, dtype=self.log_length.dtype, device=self.log_length.device)
        return torch.exp(-0.5 * ((place[:, None] - place) / self.log_length.exp()).square())

    def forward(self, values: Tensor, mask: Tensor) -> Tensor:
        rows, columns = (self.kernel(size).to(values) for size in values.shape[-2:])
        mass, density = (rows @ torch.cat([values * mask, mask], dim=1) @ columns).split([values.shape[1], 1], dim=1)
        return torch.cat([mass / (density + self.EPS), density], dim=1)


class SetConvEncoder(GridEncoder):
    """A set convolution of the sensors, then the convolutions of the grid: -> (B, R, H, W). y: [values, mask]."""

    needs_mask = True

    def __init__(self, shape: Sequence[int], features: int, width: int, channels: int):
        super().__init__(shape, features, width, channels)
        self.spread = SetConvolution()

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        return super().forward(self.spread(y[:, :-1], y[:, -1:]), features)
