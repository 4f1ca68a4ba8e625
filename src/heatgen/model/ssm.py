"""model=ssm: sliced score matching, the score without knowledge of the noise that made u_t."""

from typing import Unpack

import torch
from torch import Tensor, nn

from heatgen.check import ConfigError
from heatgen.data.stream import Batch
from heatgen.forward.process import ForwardProcess
from heatgen.model.inputs import check_inputs, show, unit
from heatgen.model.module import MethodSettings, OptimizerFactory
from heatgen.model.score import ScoreMethod
from heatgen.noise import SampleNoise
from heatgen.runtime import engine
from heatgen.sampler.interface import Sampler


class SSM(ScoreMethod):
    """s(u, t) = net(u, k) / sigma_t, an estimate of the gradient of log p_t(u), with sigma_t^2 = |L(t)|_F^2 / D.

    Loss of a sample: sigma_t^2 / D (1/2 |s|^2 + v^T (ds/du) v), D pixels, v uniform on {-1, 1}^D, k uniform on 1 .. K; the
    factor weighs the levels alike. Its expectation is sigma_t^2 / (2 D) E |s - grad log p_t|^2 and a constant. It may be
    negative. The directional derivative is taken forward, in the precision of u with autocast off.

    Args:
        inputs: what the network sees: 1, u; 2, also the map's increment.
        settings: see `Method`.

    Raises:
        ConfigError: the map has a level without noise, or the network computes activations again.

    Source: Song et al. 2019, "Sliced Score Matching", eq. 8 (variance reduced), as a baseline of Holzschuh et al. 2023.
    """

    not_compiled = "model=ssm takes forward derivatives of its network"

    def __init__(
        self,
        process: ForwardProcess,
        net: nn.Module,
        sampler: Sampler | None,
        optimizer: OptimizerFactory | None,
        inputs: int = 1,
        **settings: Unpack[MethodSettings],
    ):
        super().__init__(process, net, sampler, optimizer, **settings)
        if isinstance(net, nn.Module) and any(getattr(part, "checkpointing", False) for part in net.modules()):
            raise ConfigError(
                "net.checkpointing=true does not go with model=ssm, whose derivative is taken forward; remove it."
            )
        self.inputs = check_inputs(inputs, process)
        self.unit = unit(process) if self.inputs == 2 else 1.0
        if not (self.sigma(process.times[1:]) > 0).all():
            raise ConfigError(
                f"model=ssm needs noise at each level of forward={process.name}; raise forward.sigma (or forward.g)."
            )

    def sigma(self, t: Tensor) -> Tensor:
        """The noise at time t, root mean square over the coefficients, (B, 1, 1, 1) float64."""
        return self.process.column(self.process.std(t).double().square().flatten(1).mean(1).sqrt())

    def _output(self, u: Tensor, t: Tensor) -> Tensor:
        return self.network(show(self.process, u, t, self.inputs, self.unit), t)

    def score(self, u: Tensor, t: Tensor) -> Tensor:
        """An estimate of the gradient of log p_t(u), (B, C, H, W), for times t > 0, (B,)."""
        return self._output(u, t) / self.sigma(t).to(u)

    def loss(self, batch: Batch, rng: SampleNoise) -> Tensor:
        """sigma_t^2 (1/2 |s|^2 + v^T (ds/du) v), mean over pixels, (B,)."""
        u0, model = batch["u0"], self.bound(rng)
        t = self.process.times[rng.integers(1, self.process.num_levels).to(u0.device)]
        u = model.process.perturb(u0, t, rng.normal_like(u0))
        v = 1 - 2 * (rng.uniform_like(u) < 0.5).to(u)
        with engine.forward_mode(u.device):
            f, slope = torch.func.jvp(lambda state: model._output(state, t), (u,), (v,))[:2]
        output: Tensor = (f.square() / 2 + self.sigma(t).to(u) * v * slope).flatten(1).mean(1)
        return output
