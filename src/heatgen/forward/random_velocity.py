"""forward=random_velocity: every pixel fades at a speed that is drawn at random."""

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.levels import uniform
from heatgen.forward.process import ForwardProcess, ObservedProcess
from heatgen.noise import SampleNoise

POLICIES = ("sample", "batch", "step")


class RandomVelocity(ObservedProcess):
    """u_t = max(0, 1 - v t) u_0 + sigma eps with v uniform on [slowest, fastest], independent of u_0; t = k / K.

    Before a draw it is the map of the mean velocity.

    Args:
        slowest, fastest: the bounds of v.
        per: sample, one v for each sample's whole way; batch, one for the whole batch (that of its first sample, so results
            depend on how samples are cut into batches); step, another v at every level.
        conditional: whether the network is given the gain at both ends of its step. If it is, everything stays Gaussian
            given v; if not, q(u_t | u_0) is a mixture, the network learns E[A(s) u_0 | u_t], and there is no evidence bound.
            For the others see `heatgen.forward`.
    Source: the third open question of the linear-transformation fork of inverse heat dissipation.
    """

    is_random = True
    velocity: Tensor  # (1, 1) before a draw, (B, 1) or (B, K + 1) after it

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int = 100,
        sigma: float = 0.01,
        slowest: float = 1.0,
        fastest: float = 2.0,
        per: str = "sample",
        conditional: bool = True,
    ):
        super().__init__(shape, uniform(check.integer("forward.num_levels", num_levels, minimum=1)), sigma)
        self.slowest = check.number("forward.slowest", slowest, minimum=0)
        self.fastest = check.number("forward.fastest", fastest, minimum=0)
        if self.fastest < self.slowest:
            raise ConfigError(f"forward.fastest must be at least forward.slowest = {slowest:g}, not {fastest:g}.")
        self.per = check.choice("forward.per", per, POLICIES)
        self.conditional = check.boolean("forward.conditional", conditional)
        self.withholds_cond = not self.conditional
        self.register_buffer("velocity", torch.full((1, 1), (slowest + fastest) / 2, dtype=torch.float64), persistent=False)

    def draw(self, rng: SampleNoise) -> Tensor:
        """v of each sample, (B, 1), or with per=step at each level, (B, K + 1)."""
        uniform = rng.uniform(self.num_levels + 1 if self.per == "step" else 1)
        v = self.slowest + (self.fastest - self.slowest) * uniform.double()
        return v[:1].expand_as(v) if self.per == "batch" else v

    def bind(self, draws: Tensor | None) -> ForwardProcess:
        """The map with these velocities."""
        if draws is None:
            return self
        return self._with_buffer("velocity", draws.to(self.times))

    def gain(self, t: Tensor) -> Tensor:
        """max(0, 1 - v t), (B, 1, 1, 1)."""
        batch = max(len(t), len(self.velocity))
        t, v = t.expand(batch), self.velocity.expand(batch, -1)
        if v.shape[1] > 1:
            v = v.gather(1, self.level(t.detach()).round().long()[:, None])
        return (1 - self.column(v.to(t) * t[:, None])).clamp(min=0)

    def cond(self, t: Tensor, s: Tensor) -> Tensor | None:
        """The gain at both ends, (B, 2); None if it is withheld."""
        if self.withholds_cond:
            return None
        return torch.stack([self.gain(time).flatten() for time in (t, s)], dim=1)
