"""net/aggregator=heat: a field under hypothetical heat flows, and corrections that are learned."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.basis import exact
from heatgen.net.aggregator.weighted import reach
from heatgen.net.heat_flow import HYPOTHESES, LAPLACIANS, HeatBlock, Hypotheses, Waves
from heatgen.net.layers import mlp
from heatgen.net.layout import Layout


class HeatAggregator(nn.Module):
    """What frames of a field that flows as heat, with an unknown diffusivity, say of it: maps and features.

    The exact answers for Gaussian fields (`Hypotheses`), weighed by how well they fit, are where `layers` of `HeatBlock`
    start from; they learn what the fields look like. Invariant to the order of frames; with causal, of frames up to t alone.

    Args:
        width: R, of the maps; more than 2 C.
        channels: of the convolutions of a block.
        hidden: V, the features beside the maps.
        layers: blocks.
        diffusivities: (least, largest) of the hypotheses at first, in side^2 by the time of all levels; they are learned.
        noise: deviation of a frame's noise at first; learned.
        laplacian: five_point | spectral, of the flows. For the others see `AggregatorFactory`.
    """

    layouts = {Layout.FRAME: Layout.FLOW}

    def __init__(
        self,
        shape: Sequence[int],
        width: int,
        causal: bool,
        channels: int,
        hidden: int,
        layers: int,
        diffusivities: Sequence[float] = (0.005, 0.2),
        noise: float = 0.05,
        laplacian: str = "five_point",
    ):
        super().__init__()
        channels = check.integer("net.aggregator.channels", channels, minimum=1)
        hidden = check.integer("net.aggregator.hidden", hidden, minimum=1)
        layers = check.layers("net.aggregator.layers", layers)
        laplacian = check.choice("net.aggregator.laplacian", laplacian, LAPLACIANS)
        noise = check.number("net.aggregator.noise", noise, above=0)
        fields, self.features = shape[0], 1 + hidden
        self.causal, self.waves = causal, Waves(shape, laplacian)
        self.hypotheses = Hypotheses(self.waves, check.bracket("net.aggregator.diffusivities", diffusivities), noise)
        self.log_trust = nn.Parameter(torch.zeros(()))  # of the evidence
        self.join = mlp(2 * HYPOTHESES + 2, hidden, hidden)
        self.in_conv = nn.Conv2d((2 * HYPOTHESES + 1) * fields, channels, 1)
        self.blocks = nn.ModuleList(HeatBlock(self.waves, fields, channels, hidden) for _ in range(layers))
        self.out_conv = nn.Conv2d(channels, width - 2 * fields, 1)

    def forward(self, h: Tensor, context_mask: Tensor, times: Tensor, target_times: Tensor) -> tuple[Tensor, Tensor]:
        """The first C maps of r are the best guess of u_0, the first feature is ln D of the diffusivity that fits."""
        with exact(h.device):
            h = h.to(self.log_trust)
            allowed = reach(context_mask, times, target_times if self.causal else target_times[:, :1], self.causal)
            found = self.hypotheses(self.waves(h), times.to(h), allowed)
            mean, evidence, precision_sum, fit, known = (part.flatten(0, 1) for part in found)  # (B M, R, ...)
            weight = (fit * self.log_trust.exp()).softmax(1)
            log_rate = weight @ self.hypotheses.log_rate[:, None]
            count = allowed.flatten(0, 1).sum(1, keepdim=True).to(h)
            v = self.join(torch.cat([count.log1p(), weight, log_rate + 3, known / precision_sum.shape[-1]], dim=1))
            best, evidence, precision_sum = (
                torch.einsum("br,br...->b...", weight, part) for part in (mean, evidence, precision_sum)
            )
            weighed = mean * weight[:, :, None, None]
            x = first = self.waves.back(best)
            features = self.in_conv(self.waves.back(torch.cat([mean.flatten(1, 2), weighed.flatten(1, 2), best], dim=1)))
            for block in self.blocks:
                features, v, x = block(features, v, x, evidence, precision_sum[:, None])
            maps = torch.cat([x, first, self.out_conv(features)], dim=1)
            beside = torch.cat([log_rate, v], dim=1)
            return maps.unflatten(0, allowed.shape[:2]), beside.unflatten(0, allowed.shape[:2])
