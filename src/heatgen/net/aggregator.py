"""How a neural process puts the encodings of its context together: in any order, and where it is asked, in time's."""

from typing import Any

import torch
from torch import Tensor, nn

KINDS = ("mean", "attention", "transformer", "heat")


def reach(context_mask: Tensor, times: Tensor, target_times: Tensor, causal: bool) -> Tensor:
    """Which context frames count where it is asked, (B, M, N) bool: those that are there and, if causal, not later.

    given: (B, N) bool; times: (B, N); asked: (B, M).
    """
    allowed = context_mask[:, None, :].expand(-1, target_times.shape[1], -1)
    return allowed & (times[:, None, :] <= target_times[:, :, None]) if causal else allowed


def shares(allowed: Tensor, like: Tensor) -> Tensor:
    """The weights of a mean over the frames that count, 0 where there is none, (B, M, N) in the dtype of `like`."""
    counted = allowed.to(like)
    return counted / counted.sum(2, keepdim=True).clamp(min=1)


class Aggregator(nn.Module):
    """r(t) = sum_c w_c(t) h_c + (1 - sum_c w_c(t)) e over context frames c, e a learned encoding of nothing.

    mean: w_c = 1 / |C|, and r(t) = e without context. attention: softmax over the context and one token for nothing of
    q(t) . k(t_c) by head, with q and k networks of the time. causal: only frames with t_c <= t count, so that r(t) does not
    depend on what comes later. h: (B, N, R) or (B, N, R, H, W), times in units of the last level. Either is invariant to the
    order of the context; the others are in `token_aggregator` and `heat_flow`.
    Source: Garnelo et al. 2018 (mean), Kim et al. 2019 (attention).
    """

    def __init__(self, kind: str, width: int, causal: bool, heads: int = 4, hidden: int = 64):
        super().__init__()
        self.kind, self.causal, self.heads = kind, causal, heads
        self.empty = nn.Parameter(torch.zeros(width))
        if kind == "attention":
            self.query, self.key = (
                nn.Sequential(nn.Linear(1, hidden), nn.SiLU(), nn.Linear(hidden, hidden * heads)) for _ in range(2)
            )

    def weights(self, context_mask: Tensor, times: Tensor, target_times: Tensor) -> Tensor:
        """w, (B, heads, M, N); M is 1 where the answer is the same at every time."""
        one = self.kind == "mean" and not self.causal
        allowed = reach(context_mask, times, target_times[:, :1] if one else target_times, self.causal)
        if self.kind == "mean":
            return shares(allowed, times)[:, None]
        query, key = (
            net(t[..., None]).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for net, t in ((self.query, target_times), (self.key, times))
        )
        logits = (query @ key.mT) / query.shape[-1] ** 0.5
        logits = logits.masked_fill(~allowed[:, None], -torch.inf)
        return torch.cat([logits, torch.zeros_like(logits[..., :1])], dim=-1).softmax(-1)[..., :-1]

    def forward(self, h: Tensor, context_mask: Tensor, times: Tensor, target_times: Tensor) -> Tensor:
        """h: (B, N, R, ...); given: (B, N) bool; times: (B, N); asked: (B, M). Returns (B, M or 1, R, ...)."""
        w: Any = self.weights(context_mask, times, target_times).to(h)
        flat = h.flatten(2).unflatten(2, (h.shape[2], -1)) if h.dim() > 3 else h[..., None]  # (B, N, R, space)
        parts = flat.unflatten(2, (w.shape[1], -1))  # by head
        r = torch.einsum("bgmn,bngrs->bmgrs", w, parts).flatten(2, 3)
        missing = (1 - w.sum(-1)).transpose(1, 2)  # (B, M, heads)
        nothing = missing.repeat_interleave(h.shape[2] // w.shape[1], 2) * self.empty.to(h)
        return (r + nothing[..., None]).reshape(*r.shape[:3], *h.shape[3:])
