"""model=ssm: sliced score matching, the score without knowledge of the noise that made u_t."""

from typing import Unpack

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.stream import Batch
from heatgen.forward.process import ForwardProcess
from heatgen.model.diffusion import Diffusion
from heatgen.model.module import MethodSettings, OptimizerFactory
from heatgen.noise import SampleNoise
from heatgen.runtime import engine
from heatgen.sampler.interface import Sampler


class SSM(Diffusion):
    """The score and E[u_0 | u_t] at every t from samples of u_t alone, which may be used as those of `Diffusion`.

    Over a diagonal map the network is preconditioned as there, by coefficient, so that L s = -L c / V + g with

        g = A sqrt(S / V) F(c / sqrt(V)),    c = u_t - b - A m,    V = A^2 S + L^2;

    over others L s = g = L F(u) / rms(L). The loss of a sample is, with D pixels and t uniform,

        1 / D (1/2 |L s|^2 + z^T (dg/du) L z - sum of L^2 / V),

    whose expectation is 1 / (2 D) E |L (s - grad log p_t)|^2 and a constant; it may be negative. The last term is the
    divergence of the known part, exactly. z is uniform on {-1, 1}^D in the basis of the map, where a derivative that is
    diagonal, as that of the score of stationary Gaussian fields, has no noise of z. It is taken forward, in the precision
    of u with autocast off.

    Args:
        preconditioning: coefficient | scalar | centred, as of `Diffusion`; coefficient holds the answer for Gaussian data.
        projections: how many z a sample has.
        settings: see `Method`.

    Raises:
        ConfigError: the map has a level without noise, or the network computes activations again.

    Source: Song et al. 2019, "Sliced Score Matching", eq. 8 (variance reduced), as a baseline of Holzschuh et al. 2023.
    """

    not_compiled = "model=ssm takes forward derivatives of its network"
    takes_random_noise = False

    def __init__(
        self,
        process: ForwardProcess,
        net: nn.Module,
        sampler: Sampler | None,
        optimizer: OptimizerFactory | None,
        preconditioning: str = "scalar",
        projections: int = 1,
        **settings: Unpack[MethodSettings],
    ):
        diagonal = process.is_diagonal
        kind = {"prediction_type": "preconditioned"} if diagonal else {"prediction_type": "score", "scale_input": False}
        super().__init__(process, net, sampler, optimizer, preconditioning=preconditioning, **kind, **settings)
        if isinstance(net, nn.Module) and any(getattr(part, "checkpointing", False) for part in net.modules()):
            raise ConfigError(
                "net.checkpointing=true does not go with model=ssm, whose derivative is taken forward; remove it."
            )
        if not (process.std(process.times[1:]) > 0).flatten(1).any(1).all():
            raise ConfigError(
                f"model=ssm needs noise at each level of forward={process.name}; raise forward.sigma (or forward.g)."
            )
        self.projections = check.integer("model.projections", projections, minimum=1)

    def _learned(self, u: Tensor, t: Tensor) -> Tensor:
        """g, (B, C, H, W)."""
        output = self._output(u, t)
        if self.prediction_type == "score":
            std = self.process.std(t)
            return self.process.scale_coefficients(output, std / std.double().square().mean((1, 2, 3), keepdim=True).sqrt())
        gain, _, variance = self.known.coefficients(t)
        return self.process.scale_coefficients(output, gain * (self.known.spectrum / variance).sqrt())

    def _known(self, u: Tensor, t: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """-L c / V, (B, C, H, W), and its divergence in u, weighed by L^2: -L^2 / V by coefficient."""
        if self.prediction_type == "score":
            return 0.0, 0.0
        _, std, variance = self.known.coefficients(t)
        return self.process.basis.inverse(-std / variance * self.known.centred(u, t)).to(u), -(std**2 / variance).to(u)

    def _direction(self, u: Tensor, rng: SampleNoise) -> Tensor:
        """z, (B, C, H, W)."""
        signs = 1 - 2 * (rng.uniform_like(u) < 0.5).to(u)
        return self.process.basis.inverse(signs.double()).to(u) if self.process.is_diagonal else signs

    def loss(self, batch: Batch, rng: SampleNoise) -> Tensor:
        """1/2 |L s|^2 + z^T (dg/du) L z - sum of L^2 / V, mean over pixels, (B,)."""
        u0, model = batch["u0"], self.bound(rng)
        process, t = model.process, model.times_for(rng).to(model.process.times)
        u = process.perturb(u0, t, rng.normal_like(u0))
        known, divergence = model._known(u, t)
        slopes = []
        with engine.forward_mode(u.device):
            for _ in range(self.projections):
                z = model._direction(u, rng)
                g, slope = torch.func.jvp(
                    lambda state: model._learned(state, t), (u,), (process.scale_coefficients(z, process.std(t)),)
                )[:2]
                slopes.append(z * slope)
        total = (known + g).square() / 2 + torch.stack(slopes).mean(0) + divergence
        output: Tensor = total.flatten(1).mean(1)
        return output
