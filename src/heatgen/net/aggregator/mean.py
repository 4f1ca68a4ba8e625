"""net/aggregator=mean: the mean over the context."""

from torch import Tensor

from heatgen.net.aggregator.weighted import WeightedAggregator, reach, shares


class MeanAggregator(WeightedAggregator):
    """w_c = 1 / |C|, and r(t) = e without context. Source: Garnelo et al. 2018."""

    def weights(self, context_mask: Tensor, times: Tensor, target_times: Tensor) -> Tensor:
        """w, (B, 1, M, N); M is 1 unless causal."""
        where = target_times if self.causal else target_times[:, :1]
        return shares(reach(context_mask, times, where, self.causal), times)[:, None]
