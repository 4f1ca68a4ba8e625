"""net=fno: the Fourier neural operator, which learns in frequencies and works at any resolution."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen import check
from heatgen.net.encoder_decoder import Constants
from heatgen.net.unet import zero

LAYERS = 4
HIDDEN = 128  # width of the layer before the output


class SpectralConv(nn.Module):
    """y_k = R_k x_k for the lowest frequencies k = (k_H, k_W), 0 for the others: a periodic convolution as wide as the box.

    R: a complex (width, width) matrix for each k with 0 <= k_W < modes and -modes <= k_H < modes, or as many as shape,
    (C, H, W), has, and as many as the field at hand has. Stored as real numbers, a last axis of size 2.
    """

    def __init__(self, width: int, modes: int, shape: Sequence[int]):
        super().__init__()
        rows, negative, columns = self.sizes(modes, *shape[-2:])
        self.low = nn.Parameter(torch.rand(width, width, rows, columns, 2) / width**2)  # k_H = 0, 1, ...
        self.high = nn.Parameter(torch.rand(width, width, negative, columns, 2) / width**2)  # k_H = ..., -2, -1

    @staticmethod
    def sizes(modes: int, height: int, width: int) -> tuple[int, int, int]:
        """How many k_H >= 0, k_H < 0 and k_W >= 0 a field of height x width has, `modes` of each at most."""
        return min(modes, (height + 1) // 2), min(modes, height // 2), min(modes, width // 2 + 1)

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, width, H, W). Returns the same shape in float32 (float64 where x is), whatever autocast says."""
        with torch.autocast(x.device.type, enabled=False):
            x = x.to(torch.promote_types(x.dtype, torch.float32))
            field = torch.fft.rfft2(x)
            height, columns = field.shape[-2:]
            low = torch.view_as_complex(self.low.to(x))[:, :, : (height + 1) // 2, :columns]
            high = torch.view_as_complex(self.high.to(x))
            high = high[:, :, max(high.shape[2] - height // 2, 0) :, :columns]
            rows, negative, columns = low.shape[2], high.shape[2], low.shape[3]
            first = torch.einsum("bihw,iohw->bohw", field[:, :, :rows, :columns], low)
            last = torch.einsum("bihw,iohw->bohw", field[:, :, height - negative :, :columns], high)
            middle = first.new_zeros(*first.shape[:2], height - rows - negative, columns)
            result = F.pad(torch.cat([first, middle, last], dim=2), (0, field.shape[-1] - columns))
            output: Tensor = torch.fft.irfft2(result, s=x.shape[-2:])
            return output


class FNO(nn.Module):
    """net(x, t) -> like x: v <- GELU(W v + spectral convolution of v), four times (the last without GELU).

    Before it a linear layer to `width` channels at each pixel, behind it one to 128, GELU and one to C. The weights take
    fields of any resolution. The output starts at 0.

    Args:
        modes: frequencies that are kept on each half-axis, fewer where H or W has fewer.
        width: channels.
        grid: whether it sees where a pixel is, (i / H, j / W), as two channels, which breaks translation symmetry.
        time: whether it sees t / num_levels, as a constant channel, as `cond` is too. For the others see `heatgen.net`.

    Source: Li et al. 2021, "Fourier Neural Operator for Parametric Partial Differential Equations"; a baseline of Holzschuh
    et al. 2023.
    """

    def __init__(
        self,
        shape: Sequence[int],
        modes: int = 12,
        width: int = 20,
        grid: bool = True,
        time: bool = True,
        num_levels: int = 100,
        conditional: bool = False,
        inputs: int = 1,
    ):
        super().__init__()
        shape = check.shape("data.shape", shape)
        modes = check.integer("net.modes", modes, minimum=1)
        width = check.integer("net.width", width, minimum=1)
        self.grid = check.boolean("net.grid", grid)
        self.constants = Constants(time, num_levels, conditional)
        self.in_conv = nn.Conv2d(
            check.integer("net.inputs", inputs, minimum=1) * shape[0] + 2 * int(grid) + self.constants.channels, width, 1
        )
        self.spectral = nn.ModuleList([SpectralConv(width, modes, shape) for _ in range(LAYERS)])
        self.local = nn.ModuleList([nn.Conv2d(width, width, 1) for _ in range(LAYERS)])
        self.out_conv = nn.Sequential(nn.Conv2d(width, HIDDEN, 1), nn.GELU(), zero(nn.Conv2d(HIDDEN, shape[0], 1)))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        h = self.constants(x, t, cond)
        if self.grid:
            axes = [torch.arange(size, device=x.device, dtype=x.dtype) / size for size in x.shape[-2:]]
            places = torch.stack(torch.meshgrid(*axes, indexing="ij"))
            h = torch.cat([h, places.expand(len(x), -1, -1, -1)], dim=1)
        h = self.in_conv(h)
        for i, (spectral, local) in enumerate(zip(self.spectral, self.local, strict=True), 1):
            h = spectral(h) + local(h)
            h = F.gelu(h) if i < LAYERS else h
        output: Tensor = self.out_conv(h)
        return output
