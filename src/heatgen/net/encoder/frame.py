"""net/encoder=frame: the frame as it is, for an aggregator that reads frames themselves."""

from collections.abc import Sequence

from torch import Tensor, nn

from heatgen.net.layout import Layout


class FrameEncoder(nn.Module):
    """The frame itself, (B, C, H, W)."""

    layout = Layout.FRAME
    reads_mask, needs_mask = False, False

    def __init__(self, shape: Sequence[int], features: int, width: int):
        super().__init__()

    def forward(self, y: Tensor, features: Tensor) -> Tensor:
        """y: (B, C, H, W); features: (B, F), not used."""
        return y
