"""net/decoder=heat: fields as sums of heat flows of maps."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from heatgen import check
from heatgen.basis import exact
from heatgen.net.heat_flow import KERNELS, LAPLACIANS, Waves
from heatgen.net.layers import mlp
from heatgen.net.layout import Layout


class HeatDecoder(nn.Module):
    """The fields u that maps have become by the time t: outputs x (C, H, W), sums of heat flows of the maps.

    The mean is exp(-D lambda t) of the best guess of u_0 and sum_j a_j exp(-lambda tau_j) of every map, other outputs are
    such sums and a constant; all tau_j and a_j are learned functions of t, ln D t and the other features. Features are
    those of the time and the map, then ln D and the others of `HeatAggregator`.

    Args:
        hidden: width of the hidden layers.
        diffusivities: (least, largest) that the aggregator begins with: the largest bounds the times D t at first.
        laplacian: five_point | spectral, of the flows. For the others see `DecoderFactory`.
    """

    layout = Layout.FLOW
    log_time: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        features: int,
        extra: int,
        width: int,
        outputs: int,
        hidden: int,
        diffusivities: Sequence[float] = (0.005, 0.2),
        laplacian: str = "five_point",
    ):
        super().__init__()
        hidden = check.integer("net.decoder.hidden", hidden, minimum=1)
        _, fastest = check.bracket("net.decoder.diffusivities", diffusivities)
        laplacian = check.choice("net.decoder.laplacian", laplacian, LAPLACIANS)
        self.waves, self.fields, self.place = Waves(shape, laplacian), shape[0], features
        self.shape = (outputs * shape[0], *shape[1:])
        self.coefficients = mlp(features + extra + 2, 2 * hidden, 2 * hidden, KERNELS * (1 + self.shape[0] * width))
        self.level = mlp(features + extra + 2, hidden, self.shape[0] - self.fields)
        self.register_buffer("log_time", torch.linspace(math.log(1e-3), math.log(fastest), KERNELS), persistent=False)

    def forward(self, r: Tensor, features: Tensor) -> Tensor:
        """r: (B, R, H, W), the first C maps the best guess of u_0; features: (B, F). Returns (B, outputs C, H, W)."""
        with exact(r.device):
            features = features.to(self.log_time)
            time, log_rate = features[:, :1], features[:, self.place, None]
            features = torch.cat([features, (time + 0.03).log() / 2 + 1, log_rate + (time + 0.003).log() + 6], dim=1)
            log_time, weights = self.coefficients(features).split([KERNELS, KERNELS * self.shape[0] * r.shape[1]], dim=1)
            kernels = self.waves.flow((log_time + self.log_time).clamp(max=3).exp())  # (B, J, S)
            waves = self.waves(r.to(self.log_time))
            mixed = weights.unflatten(1, (-1, r.shape[1])) @ waves  # (B, outputs C J, S)
            fields = (mixed.unflatten(1, (-1, KERNELS)) * kernels[:, None]).sum(2)
            base = self.waves.flow(log_rate.exp() * time) * waves[:, : self.fields]
            level = F.pad(self.level(features), (self.fields, 0))[..., None, None]
            return self.waves.back(fields + F.pad(base, (0, 0, 0, len(level[0]) - self.fields))) + level
