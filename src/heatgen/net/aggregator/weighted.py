"""Which frames count where, and aggregators that are a weighted mean of their encodings."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatgen.net.layout import Layout


def reach(context_mask: Tensor, times: Tensor, target_times: Tensor, causal: bool) -> Tensor:
    """Which context frames count for which target.

    Args:
        context_mask: (B, N) bool, True where a frame is there.
        times: of the context, (B, N).
        target_times: (B, M).
        causal: whether frames that are later than the target do not count.

    Returns:
        (B, M, N) bool.
    """
    allowed = context_mask[:, None, :].expand(-1, target_times.shape[1], -1)
    return allowed & (times[:, None, :] <= target_times[:, :, None]) if causal else allowed


def shares(allowed: Tensor, like: Tensor) -> Tensor:
    """The weights of a mean over the frames that count, 0 where there is none, (B, M, N) in the dtype of `like`."""
    counted = allowed.to(like)
    return counted / counted.sum(2, keepdim=True).clamp(min=1)


class WeightedAggregator(nn.Module):
    """r(t) = sum_c w_c(t) h_c + (1 - sum_c w_c(t)) e over context frames c, e a learned encoding of nothing.

    A subclass writes `weights`. causal: only frames with t_c <= t count, so that r(t) does not depend on what comes later.
    Invariant to the order of the context.
    """

    layouts = {Layout.VECTOR: Layout.VECTOR, Layout.MAP: Layout.MAP}
    features = 0

    def __init__(self, shape: Sequence[int], width: int, causal: bool):
        super().__init__()
        self.causal = causal
        self.empty = nn.Parameter(torch.zeros(width))

    def weights(self, context_mask: Tensor, times: Tensor, target_times: Tensor) -> Tensor:
        """w, (B, heads, M, N); M is 1 where the answer is the same at every time."""
        raise NotImplementedError

    def forward(self, h: Tensor, context_mask: Tensor, times: Tensor, target_times: Tensor) -> tuple[Tensor, None]:
        w = self.weights(context_mask, times, target_times).to(h)
        flat = h.flatten(2).unflatten(2, (h.shape[2], -1)) if h.dim() > 3 else h[..., None]  # (B, N, R, space)
        parts = flat.unflatten(2, (w.shape[1], -1))  # by head
        r = torch.einsum("bgmn,bngrs->bmgrs", w, parts).flatten(2, 3)
        missing = (1 - w.sum(-1)).transpose(1, 2)  # (B, M, heads)
        nothing = missing.repeat_interleave(h.shape[2] // w.shape[1], 2) * self.empty.to(h)
        return (r + nothing[..., None]).reshape(*r.shape[:3], *h.shape[3:]), None
