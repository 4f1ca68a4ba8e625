"""net=encoder_decoder: the encoder-decoder ResNet of score matching with physics, on a periodic box."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.net.layers import in_patches
from heatgen.net.unet import CONDITIONS, zero

SLOPE = 0.01  # of the leaky ReLU below 0
LAST_KERNEL = 5  # of the output convolution


class Constants(nn.Module):
    """x, (B, M, H, W), with constant channels behind it: t / num_levels where `time`, then cond where `conditional`.

    `channels` is how many are added.
    """

    def __init__(self, time: bool, num_levels: int, conditional: bool):
        super().__init__()
        self.time, self.conditional = check.boolean("net.time", time), check.boolean("net.conditional", conditional)
        self.num_levels = check.integer("net.num_levels", num_levels, minimum=1)
        self.channels = int(time) + CONDITIONS * int(conditional)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None) -> Tensor:
        """(B, M + channels, H, W); for t and cond see `heatgen.net`."""
        features = [t[:, None] / self.num_levels] if self.time else []
        if self.conditional:
            assert cond is not None, "a conditional network needs cond"
            features.append(cond)
        columns = [f.to(x)[:, :, None, None].expand(-1, -1, *x.shape[2:]) for f in features]
        return torch.cat([x, *columns], dim=1)


def periodic(inputs: int, outputs: int, kernel_size: int) -> nn.Conv2d:
    """A convolution on a periodic box that keeps H and W; kernel_size is odd, and at most 2 min(H, W) + 1."""
    return nn.Conv2d(inputs, outputs, kernel_size, padding=kernel_size // 2, padding_mode="circular")


def check_pixels(shape: Sequence[int], kernel_size: int) -> None:
    """ConfigError where a kernel would wrap around the periodic box more than once."""
    if kernel_size // 2 > min(shape[1:]):
        other = "net=mlp" if shape[1] == 1 else "a smaller kernel, or net=unet"
        raise ConfigError(
            f"data.shape must have at least {kernel_size // 2} x {kernel_size // 2} pixels for periodic convolutions of "
            f"{kernel_size} x {kernel_size}, not {shape[1]} x {shape[2]}; choose {other}."
        )


class EncoderDecoder(nn.Module):
    """net(x, t) -> like x: residual blocks, a narrow middle, residual blocks again, at full resolution throughout.

    A block is B(h) = lrelu(conv(lrelu(conv(h)))), and all convolutions are periodic:
    h_0 = conv(x); h_i = h_{i-1} + B_i(h_{i-1}), i = 1 .. n; d_0 = conv(conv_1x1(h_n)), or h_n without a bottleneck;
    d_i = d_{i-1} + B'_i(d_{i-1}), but d_m = d_{m-1} + h_m at m = (n + 1) // 2, and d_n = B'_n(d_{n-1}); then conv_5x5(d_n).
    168,226 weights with the defaults and C = 1. The output starts at 0.

    Args:
        shape: (C, H, W), any H and W from 2 (with patch from 2 p).
        channels: the width.
        blocks: n.
        kernel_size: odd.
        bottleneck: its channels, None for none.
        time: whether it sees t / num_levels, as a constant channel, as `cond` is too.
        patch: p, as in net=unet. For the others see `heatgen.net`.

    Source: Holzschuh et al. 2023, without its code's dropout, its block whose result is discarded, and its tiling.
    """

    def __init__(
        self,
        shape: Sequence[int],
        inputs: int = 1,
        channels: int = 32,
        blocks: int = 5,
        kernel_size: int = 3,
        bottleneck: int | None = 1,
        time: bool = True,
        num_levels: int = 100,
        conditional: bool = False,
        patch: int = 1,
    ):
        super().__init__()
        self.patch, shape = in_patches("net.patch", check.shape("data.shape", shape), patch)
        width = check.integer("net.channels", channels, minimum=1)
        blocks = check.layers("net.blocks", blocks, minimum=2)
        size = check.integer("net.kernel_size", kernel_size, minimum=1)
        if size % 2 == 0:
            raise ConfigError(f"net.kernel_size must be odd, so that a kernel has a centre, not {size}.")
        check_pixels(shape, max(size, LAST_KERNEL))

        def block() -> nn.Sequential:
            first, second = periodic(width, width, size), periodic(width, width, size)
            return nn.Sequential(first, nn.LeakyReLU(SLOPE), second, nn.LeakyReLU(SLOPE))

        self.constants = Constants(time, num_levels, conditional)
        fields = check.integer("net.inputs", inputs, minimum=1) * shape[0]
        self.in_conv = periodic(fields + self.constants.channels, width, size)
        self.encoder = nn.ModuleList([block() for _ in range(blocks)])
        self.middle: nn.Module = nn.Identity()
        if bottleneck is not None:
            narrow = check.integer("net.bottleneck", bottleneck, minimum=1)
            self.middle = nn.Sequential(nn.Conv2d(width, narrow, 1), periodic(narrow, width, size))
        self.skip = (blocks + 1) // 2  # the block of the encoder, counted from 1, whose state the decoder gets again
        self.decoder = nn.ModuleList([block() for _ in range(blocks - 1)])
        self.out_conv = zero(periodic(width, shape[0], LAST_KERNEL))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        x = F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x
        h = self.in_conv(self.constants(x, t, cond))
        kept = h
        for i, block in enumerate(self.encoder, 1):
            h = h + block(h)
            kept = h if i == self.skip else kept
        h = self.middle(h)
        for i, block in enumerate(self.decoder, 1):
            h = h + kept if i == self.skip else h
            h = block(h) if i == len(self.decoder) else h + block(h)
        output: Tensor = self.out_conv(h)
        return F.pixel_shuffle(output, self.patch) if self.patch > 1 else output
