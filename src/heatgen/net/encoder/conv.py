"""net/encoder=conv: convolutions and pooling, then one vector."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.net.layers import conv, spread
from heatgen.net.layout import Layout


class ConvEncoder(nn.Module):
    """Convolutions and pooling, flattened, and the features behind: -> (B, R).

    Two blocks of a 5 x 5 convolution, SiLU and a halving of both sides; without normalisation over the batch, which would
    let frames of one task see those of others.

    Args:
        channels: of the convolutions. For the others see `EncoderFactory`.

    Raises:
        ConfigError: H or W is less than 4, or an option is out of range.
    """

    layout = Layout.VECTOR
    reads_mask, needs_mask = True, False

    def __init__(self, shape: Sequence[int], features: int, width: int, channels: int):
        super().__init__()
        channels = check.integer("net.encoder.channels", channels, minimum=1)
        if min(shape[-2:]) < 4:
            pixels = f"{shape[-2]} x {shape[-1]}"
            raise ConfigError(f"net/encoder=conv needs at least 4 pixels a side, not {pixels}; use net/encoder=flat.")
        self.first, self.second = conv(shape[0] + features, channels, 5), conv(channels, channels, 5)
        left = [size // 2 // 2 for size in shape[-2:]]
        self.out_layer = nn.Linear(channels * math.prod(left) + features, width)

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        h = torch.cat([y, spread(features, y)], dim=1)
        for layer in (self.first, self.second):
            h = F.max_pool2d(F.silu(layer(h)), 2)
        output: Tensor = self.out_layer(torch.cat([h.flatten(1), features], dim=1))
        return output
