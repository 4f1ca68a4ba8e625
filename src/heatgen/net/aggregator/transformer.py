"""net/aggregator=transformer: tokens of patches, and attention between them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.net.aggregator.weighted import reach
from heatgen.net.layers import mlp, places
from heatgen.net.layout import Layout


class Block(nn.Module):
    """x <- x + attend(x, memory); x <- x + f(x), each after a LayerNorm of its own, over one token at a time.

    x: (B, Q, R); memory: (B, S, R); allowed: (B, Q, S) bool, at least one in each row.
    """

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.heads = heads
        self.before, self.after = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value, self.out_layer = (nn.Linear(width, width) for _ in range(4))
        self.feed = mlp(width, hidden, width)

    def forward(self, x: Tensor, memory: Tensor, allowed: Tensor) -> Tensor:
        queries, keys = self.before(x), self.before(memory)
        query, key, value = (
            net(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for net, tokens in ((self.query, queries), (self.key, keys), (self.value, keys))
        )
        found = F.scaled_dot_product_attention(query, key, value, attn_mask=allowed[:, None])
        x = x + self.out_layer(found.transpose(1, 2).flatten(2))
        output: Tensor = x + self.feed(self.after(x))
        return output


class TransformerAggregator(nn.Module):
    """r(t, place) of every target patch, by layers of attention to the tokens of the context and to one for nothing.

    Context tokens attend to context tokens, with causal only to those of frames with t' <= their own; a target token, made
    of its time and place by a network of its own, attends to context tokens, with causal of frames with t_c <= t, and never
    to a target: the prediction of one does not depend on the others. The token for nothing, learned, is always there.

    Args:
        width: R, a multiple of heads.
        heads: of attention.
        hidden: width of the networks of a token.
        layers: of attention. For the others see `AggregatorFactory`.

    Raises:
        ConfigError: an option is out of range, or width no multiple of heads.

    Source: Nguyen & Grover 2022 (TNP-D, whose targets attend to themselves as well).
    """

    layouts = {Layout.PATCHES: Layout.PATCHES}
    features = 0

    def __init__(self, shape: Sequence[int], width: int, causal: bool, heads: int, hidden: int, layers: int):
        super().__init__()
        heads = check.integer("net.aggregator.heads", heads, minimum=1)
        hidden = check.integer("net.aggregator.hidden", hidden, minimum=1)
        layers = check.layers("net.aggregator.layers", layers)
        if width % heads:
            raise ConfigError(f"net.width = {width} must be a multiple of net.aggregator.heads = {heads}.")
        self.causal = causal
        self.empty = nn.Parameter(torch.randn(width))
        self.target = mlp(1 + 2, hidden, width)
        self.blocks = nn.ModuleList(Block(width, heads, hidden) for _ in range(layers))
        self.last = nn.LayerNorm(width)

    def forward(self, h: Tensor, context_mask: Tensor, times: Tensor, target_times: Tensor) -> tuple[Tensor, None]:
        (b, n), m, (rows, columns) = times.shape, target_times.shape[1], h.shape[-2:]
        known = n * rows * columns
        tokens = torch.cat([h.movedim(2, -1).flatten(1, 3), self.targets(target_times.to(h), h)], dim=1)
        allowed = self.allowed(context_mask, times, target_times, rows * columns)
        empty = self.empty.expand(b, 1, -1).to(tokens)
        for block in self.blocks:
            tokens = block(tokens, torch.cat([empty, tokens[:, :known]], dim=1), allowed)
        return self.last(tokens[:, known:]).unflatten(1, (m, rows, columns)).movedim(-1, 2), None

    def targets(self, target_times: Tensor, h: Tensor) -> Tensor:
        """The target tokens, of every time and place, (B, M rows columns, R)."""
        place = places(h)
        lead = (*target_times.shape, *place.shape[:2])
        tokens = torch.cat([target_times[..., None, None, None].expand(*lead, 1), place.expand(*lead, 2)], dim=-1)
        output: Tensor = self.target(tokens.flatten(1, 3))
        return output

    def allowed(self, context_mask: Tensor, times: Tensor, target_times: Tensor, cells: int) -> Tensor:
        """Which token may attend to which: context and targets, to nothing and the context, (B, (N + M) P, 1 + N P) bool."""
        frames = reach(context_mask, times, torch.cat([times, target_times], dim=1), self.causal)
        tokens = frames.repeat_interleave(cells, 1).repeat_interleave(cells, 2)
        return F.pad(tokens, (1, 0), value=True)
