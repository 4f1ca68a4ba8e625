"""Pillow's bicubic resizing of float images, as matrix products over whole batches."""

import functools
import math

import torch
from torch import Tensor

from heatgen.basis import exact

REACH = 2.0  # of the bicubic kernel, in pixels of the coarser grid
SHARP = -0.5  # the kernel's parameter a
BAND = 48  # places that are computed by one product, from the pixels that any of them needs
TOGETHER = 16  # images that are resized at once, so that they stay in a processor's cache


def resize(images: Tensor, size: int) -> Tensor:
    """Bytes (B, C, H, W) -> (B, C, size, size) float32 in [0, 255]: bicubic and antialiased as in Pillow, not rounded.

    On the device of the images: columns, then rows, in float32, where Pillow sums in float64; no value is farther off than
    some 1e-4.

    Source: Parmar et al. 2022, as clean-fid does it image by image with Pillow.
    """
    count, channels, height, width = images.shape
    output = torch.empty(count, channels, size, size, device=images.device)
    with exact(images.device):
        for part, place in zip(images.split(TOGETHER), output.split(TOGETHER), strict=True):
            x = part.reshape(-1, width).float()
            if width != size:
                x = torch.cat([x[:, a:b] @ weights for a, b, weights in bands(width, size, images.device)], dim=1)
            x = x.view(-1, height, size)
            if height != size:
                x = torch.cat([weights.mT @ x[:, a:b] for a, b, weights in bands(height, size, images.device)], dim=1)
            place.copy_(x.view_as(place).clamp_(0, 255))
    return output


@functools.lru_cache(maxsize=16)
def bands(before: int, after: int, device: torch.device) -> list[tuple[int, int, Tensor]]:
    """Bands of the matrix (before, after) that resizes a row: of pixels a .. b - 1, and their weights (b - a, places)."""
    matrix = weights_of(before, after)
    output = []
    for part in matrix.split(BAND, dim=1):
        used = part.abs().sum(1).nonzero()[:, 0]
        a, b = int(used[0]), int(used[-1]) + 1
        output.append((a, b, part[a:b].float().contiguous().to(device)))
    return output


def weights_of(before: int, after: int) -> Tensor:
    """The weights of each pixel of a row at each place of the resized row, (before, after) float64, as Pillow has them."""
    scale = before / after
    stretch = max(scale, 1.0)  # a smaller row averages
    matrix = torch.zeros(before, after, dtype=torch.float64)
    for place in range(after):
        centre = (place + 0.5) * scale
        first = max(0, math.floor(centre - REACH * stretch + 0.5))
        last = min(before, math.floor(centre + REACH * stretch + 0.5))
        weights = bicubic((torch.arange(first, last, dtype=torch.float64) - centre + 0.5) / stretch)
        matrix[first:last, place] = weights / weights.sum()
    return matrix


def bicubic(x: Tensor) -> Tensor:
    """The kernel at distances x in pixels.

    Source: Keys 1981, eq. 4.
    """
    x = x.abs()
    near = ((SHARP + 2) * x - (SHARP + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * SHARP
    return torch.where(x < 1, near, torch.where(x < REACH, far, 0.0))
