"""model=smdp: score matching via differentiable physics, a learned score beside the reversed physics."""

from typing import Unpack

from torch import Tensor, nn

from heatgen import check
from heatgen.forward.process import ForwardProcess
from heatgen.model.inputs import check_inputs, show, unit
from heatgen.model.interface import rms
from heatgen.model.module import OptimizerFactory
from heatgen.model.rollout import Rollout, RolloutSettings
from heatgen.model.score import ScoreMethod
from heatgen.noise import SampleNoise
from heatgen.sampler.interface import Sampler

LOSSES = ("backward", "both", "backward_and_zero")


class SMDP(Rollout, ScoreMethod):
    """The network is the score, always: s_theta(u, t) = net / q, q the noise of the map's last step (root mean square).

    Step back from t to s, in training and inference: u - P + f Q^2 s_theta(u, t); and forward: u + P - f Q^2 s_theta(u, s),
    with the map's `increment` P and its step's variance Q^2. In training f is 1 for losses=backward and 1/2 for the others:
    the optimum is then the same s_theta (of both, for equal steps), for Gaussian data

        (a V(s) / V(t) - (2 - a)) / Q^2 * u,    a = A(t) / A(s), which tends to the score -u / V as the step shrinks.

    In inference f = 1 with noise is the reverse SDE (sampler=sde), f = 1/2 without the probability flow (sampler=ode), f = 1
    without the mean path, which is what the paper's ODE is.

    Args:
        losses: backward, the window back from its end; both, and the window forward from its start; backward_and_zero, with
            |f Q^2 s_theta|^2 in place of the latter.
        inputs: what the network sees: 1, u; 2, also P / q.
        settings: see `Rollout` and `Method`.

    Source: Holzschuh et al. 2023, sections 2 and 3.2.
    """

    def __init__(
        self,
        process: ForwardProcess,
        net: nn.Module,
        sampler: Sampler | None,
        optimizer: OptimizerFactory | None,
        losses: str = "backward",
        inputs: int = 1,
        **settings: Unpack[RolloutSettings],
    ):
        super().__init__(process, net, sampler, optimizer, **settings)
        self.losses = check.choice("model.losses", losses, LOSSES)
        self.inputs, self.unit = check_inputs(inputs, process), unit(process)

    def score(self, u: Tensor, t: Tensor) -> Tensor:
        """s_theta(u, t), (B, C, H, W)."""
        return self.network(show(self.process, u, t, self.inputs, self.unit), t) / self.unit

    def _correction(self, u: Tensor, at: Tensor, s: Tensor, t: Tensor, factor: float) -> Tensor:
        return self.process.scale_coefficients(self.score(u, at), factor * self.reverse_std(t, s) ** 2).to(u)

    def physics_step(self, u: Tensor, t: Tensor, s: Tensor, factor: float) -> Tensor:
        """The step back from t to s, u - P + factor Q^2 s_theta(u, t), (B, C, H, W)."""
        return u - self.process.increment(u, s, t).to(u) + self._correction(u, t, s, t, factor)

    def reverse_mean(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The mean of the reverse SDE's step from t to s, (B, C, H, W)."""
        return self.physics_step(u, t, s, 1.0)

    def rollout(self, times: Tensor, states: list[Tensor], rng: SampleNoise) -> Tensor:
        """The losses of a window, (B,)."""
        factor = 1.0 if self.losses == "backward" else 0.5
        back = self.unroll(lambda u, t, s: self.physics_step(u, t, s, factor), times.flip(0), states[::-1], rng)
        if self.losses == "backward":
            return back
        if self.losses == "both":
            return back + self.unroll(lambda u, s, t: self._forward(u, s, t, factor), times, states, rng)
        for s, t, u in zip(times[:-1], times[1:], states[1:], strict=True):
            scale = rms(self.reverse_std(t, s)).flatten().to(u)
            back = back + self._correction(u, t, s, t, factor).square().flatten(1).mean(1) / scale**2
        return back

    def _forward(self, u: Tensor, s: Tensor, t: Tensor, factor: float) -> Tensor:
        return u + self.process.increment(u, s, t).to(u) - self._correction(u, s, s, t, factor)
