"""net/aggregator=mean: the mean over the context."""

from collections.abc import Sequence

from torch import Tensor

from heatgen.net.aggregator.weighted import WeightedAggregator, reach, shares


class MeanAggregator(WeightedAggregator):
    """w_c = 1 / |C|, and r(t) = e without context. Source: Garnelo et al. 2018."""

    def __init__(self, shape: Sequence[int], width: int, causal: bool):
        """Make the layer.

        Args:
            shape: of a frame, (C, H, W), not used.
            width: R.
            causal: whether frames that are later than a target do not count.
        """
        super().__init__(width, causal)

    def weights(self, context_mask: Tensor, times: Tensor, target_times: Tensor) -> Tensor:
        """w, (B, 1, M, N); M is 1 unless causal."""
        where = target_times if self.causal else target_times[:, :1]
        return shares(reach(context_mask, times, where, self.causal), times)[:, None]
