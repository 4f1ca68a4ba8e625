"""net/aggregator=attention: a mean over the context, weighted by time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.net.aggregator.weighted import WeightedAggregator, reach


class AttentionAggregator(WeightedAggregator):
    """w = softmax over the context and one token for nothing of q(t) . k(t_c) by head, q and k networks of the time.

    Args:
        width: R, a multiple of heads.
        heads: each weighs its own part of the encoding.
        hidden: width of the networks of the time. For the others see `AggregatorFactory`.

    Raises:
        ConfigError: an option is out of range, or width no multiple of heads.

    Source: Kim et al. 2019.
    """

    def __init__(self, shape: Sequence[int], width: int, causal: bool, heads: int = 4, hidden: int = 64):
        heads = check.integer("net.aggregator.heads", heads, minimum=1)
        hidden = check.integer("net.aggregator.hidden", hidden, minimum=1)
        if width % heads:
            raise ConfigError(f"net.width = {width} must be a multiple of net.aggregator.heads = {heads}.")
        super().__init__(shape, width, causal)
        self.heads = heads
        self.query, self.key = (
            nn.Sequential(nn.Linear(1, hidden), nn.SiLU(), nn.Linear(hidden, hidden * heads)) for _ in range(2)
        )

    def weights(self, context_mask: Tensor, times: Tensor, target_times: Tensor) -> Tensor:
        """w, (B, heads, M, N)."""
        allowed = reach(context_mask, times, target_times, self.causal)
        query, key = (
            net(t[..., None]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for net, t in ((self.query, target_times), (self.key, times))
        )
        logits = (query @ key.mT) / query.shape[-1] ** 0.5
        logits = logits.masked_fill(~allowed[:, None], -torch.inf)
        return torch.cat([logits, torch.zeros_like(logits[..., :1])], dim=-1).softmax(-1)[..., :-1]
