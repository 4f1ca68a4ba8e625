"""net/encoder=patch: one token for each patch of a frame."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.net.layers import in_patches, mlp, places
from heatgen.net.layout import Layout


class PatchEncoder(nn.Module):
    """[a patch of y, the features, its place] -> one token for each patch of p x p pixels, (B, R, H/p, W/p).

    A network of two hidden layers, the same for every patch.

    Args:
        hidden: width of the hidden layers.
        patch: p, the side of a patch in pixels. For the others see `EncoderFactory`.

    Raises:
        ConfigError: the patches do not tile the frame, or an option is out of range.
    """

    layout = Layout.PATCHES
    reads_mask, needs_mask = True, False

    def __init__(self, shape: Sequence[int], features: int, width: int, hidden: int, patch: int):
        super().__init__()
        hidden = check.integer("net.encoder.hidden", hidden, minimum=1)
        self.patch, inner = in_patches("net.encoder.patch", shape, patch)
        self.layers = mlp(inner[0] + features + 2, hidden, hidden, width)

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        (b, c, height, columns), p = y.shape, self.patch
        cut = y.reshape(b, c, height // p, p, columns // p, p).permute(0, 2, 4, 1, 3, 5).flatten(3)  # (B, H/p, W/p, C p p)
        lead = cut.shape[:3]
        place = places(cut[..., 0]).expand(*lead, 2)
        tokens = torch.cat([cut, features[:, None, None].expand(*lead, -1), place], dim=-1)
        output: Tensor = self.layers(tokens).movedim(-1, 1)
        return output
