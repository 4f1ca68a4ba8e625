"""Small layers that the parts of neural processes share."""

import itertools

import torch
from torch import Tensor, nn


def mlp(*widths: int) -> nn.Sequential:
    """Linear layers of these widths with SiLU between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.SiLU()]
    return nn.Sequential(*layers[:-1])


def conv(inputs: int, outputs: int, kernel_size: int = 3) -> nn.Conv2d:
    """A convolution that keeps H and W; beyond the edge stands the edge's own value, as beyond an insulating wall."""
    return nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, padding_mode="replicate")


def spread(features: Tensor, like: Tensor) -> Tensor:
    """Features (B, F) as constant channels of fields `like`, (B, F, H, W)."""
    return features[:, :, None, None].expand(-1, -1, *like.shape[-2:])


def places(like: Tensor) -> Tensor:
    """Row and column of the centre of every cell of maps `like`, (..., H, W), between 0 and 1: (H, W, 2)."""
    rows, columns = ((torch.arange(size, dtype=like.dtype, device=like.device) + 0.5) / size for size in like.shape[-2:])
    return torch.stack(torch.meshgrid(rows, columns, indexing="ij"), dim=-1)
