"""Small layers that networks share."""

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError


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


def in_patches(key: str, shape: Sequence[int], patch: int) -> tuple[int, tuple[int, int, int]]:
    """p, and the shape (C p^2, H / p, W / p) of fields (C, H, W) whose patches of p x p pixels are channels.

    ConfigError, which names `key`, where such patches do not tile the fields.
    """
    side, (channels, height, width) = check.integer(key, patch, minimum=1), shape
    if height % side or width % side:
        best = next(size for size in range(min(side, height, width), 0, -1) if not (height % size or width % size))
        raise ConfigError(f"{key}={side} must divide both sides of fields of {height} x {width} pixels; use {key}={best}.")
    return side, (channels * side**2, height // side, width // side)
