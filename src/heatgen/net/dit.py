"""net=dit: a diffusion transformer, whose tokens are patches and whose blocks are modulated by the level."""

import functools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.net.layers import in_patches
from heatgen.net.unet import CONDITIONS, sinusoid, zero

norm = functools.partial(nn.LayerNorm, eps=1e-6, elementwise_affine=False)  # the modulation stands for its weights


def positions(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of the row of each patch, and behind them those of its column; (rows columns, width)."""
    row, column = (sinusoid(torch.arange(size), width // 2) for size in (rows, columns))
    both = torch.cat([row[:, None].expand(-1, columns, -1), column[None].expand(rows, -1, -1)], dim=-1)
    return both.flatten(0, 1)


class Block(nn.Module):
    """x <- x + g attend((1 + a) norm(x) + b); x <- x + g' feed((1 + a') norm(x) + b'), the six numbers from the level.

    They start at 0 (adaLN-Zero): a new block does nothing.
    """

    def __init__(self, width: int, heads: int, dropout: float):
        super().__init__()
        self.heads = heads
        self.before, self.after = norm(width), norm(width)
        self.qkv, self.project = nn.Linear(width, 3 * width), nn.Linear(width, width)
        first, last = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.feed = nn.Sequential(first, nn.GELU(approximate="tanh"), nn.Dropout(dropout), last)
        self.modulation = nn.Sequential(nn.SiLU(), zero(nn.Linear(width, 6 * width)))

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        """x: tokens, (B, N, width); embedding: of the level, (B, width)."""
        b, a, g, *others = self.modulation(embedding)[:, None].chunk(6, dim=-1)
        q, k, v = self.qkv((1 + a) * self.before(x) + b).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + g * self.project(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        b, a, g = others
        output: Tensor = x + g * self.feed((1 + a) * self.after(x) + b)
        return output


class DiT(nn.Module):
    """net(x, t) -> like x: a transformer of patches with fixed places, conditioned on the index t of the level.

    The output starts at 0.

    Args:
        patch: the side of a patch in pixels, which divides H and W.
        width: of a token, a multiple of 4 and of heads.
        depth: blocks.
        heads: of attention.
        dropout: share of hidden units set to 0 in training. For the others see `heatgen.net`.

    Raises:
        ConfigError: an option is out of range, or sizes do not fit.

    Source: Peebles and Xie 2023, with adaLN-Zero.
    """

    positions: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        patch: int = 2,
        width: int = 64,
        depth: int = 4,
        heads: int = 4,
        dropout: float = 0.0,
        conditional: bool = False,
        inputs: int = 1,
    ):
        super().__init__()
        self.patch, (channels, *grid) = in_patches("net.patch", check.shape("data.shape", shape), patch)
        self.width = check.integer("net.width", width, minimum=4)
        heads = check.integer("net.heads", heads, minimum=1)
        if self.width % 4 or self.width % heads:
            raise ConfigError(f"net.width must be a multiple of 4 and of net.heads = {heads}, not {self.width}.")
        depth, dropout = check.layers("net.depth", depth), check.number("net.dropout", dropout, minimum=0, maximum=1)
        fields = check.integer("net.inputs", inputs, minimum=1) * channels
        self.register_buffer("positions", positions(grid[0], grid[1], self.width), persistent=False)
        self.in_layer = nn.Linear(fields, self.width)
        self.embed = nn.Sequential(nn.Linear(self.width, self.width), nn.SiLU(), nn.Linear(self.width, self.width))
        self.conditional = check.boolean("net.conditional", conditional)
        self.cond_embed: nn.Module | None = None
        if self.conditional:
            hidden = nn.Linear(CONDITIONS, self.width)
            self.cond_embed = nn.Sequential(hidden, nn.SiLU(), zero(nn.Linear(self.width, self.width)))
        self.blocks = nn.ModuleList(Block(self.width, heads, dropout) for _ in range(depth))
        self.last = norm(self.width)
        self.modulation = nn.Sequential(nn.SiLU(), zero(nn.Linear(self.width, 2 * self.width)))
        self.out_layer = zero(nn.Linear(self.width, channels))

    def forward(self, x: Tensor, t: Tensor, cond: Tensor | None = None) -> Tensor:
        embedding = self.embed(sinusoid(t, self.width).to(x.dtype))
        if self.cond_embed is not None:
            assert cond is not None, "a conditional network needs cond"
            embedding = embedding + self.cond_embed(cond)
        tokens = self.in_layer(F.pixel_unshuffle(x, self.patch).flatten(2).mT) + self.positions.to(x.dtype)
        for block in self.blocks:
            tokens = block(tokens, embedding)
        b, a = self.modulation(embedding)[:, None].chunk(2, dim=-1)
        patches = self.out_layer((1 + a) * self.last(tokens) + b)
        return F.pixel_shuffle(patches.mT.unflatten(2, (x.shape[2] // self.patch, -1)), self.patch)
