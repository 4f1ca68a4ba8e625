"""net/decoder=patch: from tokens to the patches of a frame."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen import check
from heatgen.net.layers import mlp, spread
from heatgen.net.layout import Layout


class PatchDecoder(nn.Module):
    """[a token, the features] -> its patch of p x p pixels, put together: (B, R, H/p, W/p) -> outputs x (C, H, W).

    A network of two hidden layers, the same for every patch.

    Args:
        hidden: width of the hidden layers.
        patch: p, the side of a patch in pixels. For the others see `DecoderFactory`.
    """

    layout = Layout.PATCHES

    def __init__(self, shape: Sequence[int], features: int, extra: int, width: int, outputs: int, hidden: int, patch: int):
        super().__init__()
        hidden = check.integer("net.decoder.hidden", hidden, minimum=1)
        patch = check.integer("net.decoder.patch", patch, minimum=1)
        self.patch = patch
        self.layers = mlp(width + features + extra, hidden, hidden, outputs * shape[0] * patch**2)

    def forward(self, r: Tensor, features: Tensor) -> Tensor:
        tokens = torch.cat([r, spread(features, r)], dim=1).movedim(1, -1)
        return F.pixel_shuffle(self.layers(tokens).movedim(-1, 1), self.patch)
