"""net=unet: the U-Net of improved / ablated diffusion models (ADM), as inverse heat dissipation uses it."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from heatgen import check
from heatgen.check import ConfigError
from heatgen.net.layers import in_patches
from heatgen.runtime import engine

EMBEDDING_FACTOR = 4  # the width of the level's embedding, in units of the U-Net's channels
CONDITIONS = 2  # features that a conditional network sees beside the level: the map at both ends of a step
Convolution = Callable[..., nn.Conv2d]  # (channels, out_channels): 3 x 3
PADDINGS = ("zeros", "circular")  # what lies beyond the edge: nothing, or the opposite edge


def zero(module: nn.Module) -> nn.Module:
    """`module` with all its parameters set to 0, so that its branch starts as nothing."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def sinusoid(t: Tensor, size: int, max_period: float = 10000.0) -> Tensor:
    """[cos(t w), sin(t w)] with w_i = max_period^(-i / (size/2)); (B,) -> (B, size). Source: Vaswani et al. 2017."""
    half = size // 2
    frequencies = torch.exp(-math.log(max_period) / half * torch.arange(half, device=t.device, dtype=torch.float32))
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class GroupNorm(nn.GroupNorm):
    """PyTorch's, whose forward derivative is of contiguous activations alone."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(engine.plain(x))


class ResidualBlock(nn.Module):
    """GroupNorm-SiLU-conv, plus the level's embedding, GroupNorm-SiLU-dropout-zero conv, plus a skip."""

    def __init__(self, channels: int, out_channels: int, embedding: int, dropout: float, groups: int, conv: Convolution):
        super().__init__()
        self.first = nn.Sequential(GroupNorm(groups, channels), nn.SiLU(), conv(channels, out_channels))
        self.embed = nn.Sequential(nn.SiLU(), nn.Linear(embedding, out_channels))
        last = zero(conv(out_channels, out_channels))
        self.second = nn.Sequential(GroupNorm(groups, out_channels), nn.SiLU(), nn.Dropout(dropout), last)
        self.skip = nn.Identity() if channels == out_channels else nn.Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.first(x) + self.embed(embedding)[:, :, None, None]
        output: Tensor = self.skip(x) + self.second(h)
        return output


class Attention(nn.Module):
    """Self-attention over all pixels with one head, plus a skip; its last layer starts at zero."""

    def __init__(self, channels: int, groups: int):
        super().__init__()
        self.norm = GroupNorm(groups, channels)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.project = zero(nn.Conv1d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x.flatten(2))).mT.chunk(3, dim=2)  # each (B, H*W, C)
        h = F.scaled_dot_product_attention(q, k, v)
        output: Tensor = x + self.project(h.mT).reshape(x.shape)
        return output


class Stage(nn.Module):
    """A residual block, and attention behind it where wanted."""

    def __init__(self, block: ResidualBlock, attention: Attention | None):
        super().__init__()
        self.block, self.attention = block, attention

    def forward(self, x: Tensor, embedding: Tensor, skip: Tensor | None = None) -> Tensor:
        h = self.block(x if skip is None else torch.cat([x, skip], dim=1), embedding)
        output: Tensor = h if self.attention is None else self.attention(h)
        return output


class UNet(nn.Module):
    """net(x, t) -> like x: a U-Net conditioned on the index t of the level by a sinusoid. The output starts at 0.

    Args:
        shape: (C, H, W), any H and W.
        model_channels: the width.
        multipliers: the width of each resolution, in units of it.
        num_res_blocks: residual blocks a resolution (one more on the way up).
        attention_levels: resolutions with attention, as indices into multipliers (0 is full resolution).
        dropout: share of activations set to 0 in training.
        norm_groups: of GroupNorm; they divide every width.
        padding: what 3 x 3 convolutions see beyond the edge: zeros, or (circular, for a periodic box) the opposite edge.
        memory_format: how activations lie in memory, which changes speed alone: auto, contiguous or channels_last.
        checkpointing: for the backward pass keep what goes into each residual block alone, and compute the rest again: less
            memory, the same gradients, about a third more time.
        patch: p, which divides H and W: inside are fields p times smaller, with patches of p x p pixels as channels. For the
            others see `heatgen.net`.

    Raises:
        ConfigError: an option is out of range, or sizes do not fit.

    Source: Nichol and Dhariwal 2021; Rissanen et al. 2023, appendix B.
    """

    def __init__(
        self,
        shape: Sequence[int],
        model_channels: int = 128,
        multipliers: Sequence[int] = (1, 2, 2),
        num_res_blocks: int = 4,
        attention_levels: Sequence[int] = (2,),
        dropout: float = 0.1,
        norm_groups: int = 32,
        conditional: bool = False,
        padding: str = "zeros",
        memory_format: str = "auto",
        inputs: int = 1,
        checkpointing: bool = False,
        patch: int = 1,
    ):
        super().__init__()
        width = check.integer("net.model_channels", model_channels, minimum=2)
        blocks = check.layers("net.num_res_blocks", num_res_blocks)
        groups = check.integer("net.norm_groups", norm_groups, minimum=1)
        dropout = check.number("net.dropout", dropout, minimum=0, maximum=1)
        widths = [width * m for m in check.shape("net.multipliers", multipliers)]
        check_widths(width, widths, groups, attention_levels)
        embedding = EMBEDDING_FACTOR * width
        self.patch, inner = in_patches("net.patch", shape, patch)
        circular = check.choice("net.padding", padding, PADDINGS) == "circular"
        mode: Literal["zeros", "circular"] = "circular" if circular else "zeros"
        conv = functools.partial(nn.Conv2d, kernel_size=3, padding=1, padding_mode=mode)

        def stage(inputs: int, outputs: int, attends: bool) -> Stage:
            block = ResidualBlock(inputs, outputs, embedding, dropout, groups, conv)
            return Stage(block, Attention(outputs, groups) if attends else None)

        self.width = width
        self.embed = nn.Sequential(nn.Linear(width, embedding), nn.SiLU(), nn.Linear(embedding, embedding))
        self.conditional = check.boolean("net.conditional", conditional)
        self.cond_embed: nn.Module | None = None
        if self.conditional:
            self.cond_embed = nn.Sequential(
                nn.Linear(CONDITIONS, embedding), nn.SiLU(), zero(nn.Linear(embedding, embedding))
            )
        self.in_conv = conv(check.integer("net.inputs", inputs, minimum=1) * inner[0], width)
        self.down = nn.ModuleList()
        channels, skips = width, [width]
        for level in range(len(widths)):
            for _ in range(blocks):
                self.down.append(stage(channels, widths[level], level in attention_levels))
                channels = widths[level]
                skips.append(channels)
            if level < len(widths) - 1:
                self.down.append(conv(channels, channels, stride=2))
                skips.append(channels)
        self.middle = nn.ModuleList(stage(channels, channels, attends) for attends in (True, False))
        self.up = nn.ModuleList()
        for level in reversed(range(len(widths))):
            for _ in range(blocks + 1):
                self.up.append(stage(channels + skips.pop(), widths[level], level in attention_levels))
                channels = widths[level]
            if level > 0:
                self.up.append(conv(channels, channels))
        self.out_conv = nn.Sequential(GroupNorm(groups, channels), nn.SiLU(), zero(conv(width, inner[0])))
        self.checkpointing = check.boolean("net.checkpointing", checkpointing)
        self.memory_format = engine.memory_format(memory_format)
        self.to(memory_format=self.memory_format)

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        embedding = self.embed(sinusoid(t, self.width).to(x.dtype))
        if self.cond_embed is not None:
            assert cond is not None, "a conditional network needs cond"
            embedding = embedding + self.cond_embed(cond)
        x = F.pixel_unshuffle(x, self.patch) if self.patch > 1 else x
        h = self.in_conv(x.contiguous(memory_format=self.memory_format))
        skips = [h]
        for layer in self.down:
            h = self.staged(layer, h, embedding) if isinstance(layer, Stage) else layer(h)
            skips.append(h)
        for layer in self.middle:
            h = self.staged(layer, h, embedding)
        for layer in self.up:
            if isinstance(layer, Stage):
                h = self.staged(layer, h, embedding, skips.pop())
            else:  # up to the size of the next skip, which need not be twice this one
                h = layer(F.interpolate(h, size=skips[-1].shape[-2:], mode="nearest"))
        output: Tensor = self.out_conv(h).contiguous()
        return F.pixel_shuffle(output, self.patch) if self.patch > 1 else output

    def staged(self, stage: nn.Module, *inputs: Tensor) -> Tensor:
        """A stage of these inputs, whose activations are not kept where they are to be computed again.

        Source: Chen et al. 2016, training deep nets with sublinear memory cost.
        """
        again = self.checkpointing and torch.is_grad_enabled()
        output: Tensor = checkpoint(stage, *inputs, use_reentrant=False) if again else stage(*inputs)
        return output


def check_widths(width: int, widths: list[int], groups: int, attention_levels: Sequence[int]) -> None:
    """ConfigError unless `groups` divides every width, and the first width is that of the in-convolution."""
    wrong = [w for w in [width, *widths] if w % groups]
    if wrong:
        raise ConfigError(f"net.norm_groups = {groups} must divide every width of the U-Net, but one is {wrong[0]}.")
    if widths[0] != width:
        raise ConfigError(f"net.multipliers must start with 1, not {widths[0] // width}.")
    for level in check.integers("net.attention_levels", attention_levels, minimum=0):
        if level >= len(widths):
            raise ConfigError(f"net.attention_levels must lie in 0 .. {len(widths) - 1} (resolutions), not {level}.")
