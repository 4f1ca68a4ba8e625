"""model=autoregressive: a network alone steps back from level to level, without the physics."""

from torch import Tensor

from heatgen.model.rollout import Rollout
from heatgen.noise import SampleNoise


class Autoregressive(Rollout):
    """The step back from t to s is u + (t - s) / t_K net(u, t), trained along windows of the map's trajectory.

    With the map's own noise between (sampler=ancestral) or without (sampler.stochastic=false). The baseline "s_theta only".

    Source: Holzschuh et al. 2023, section 3.2.
    """

    def reverse_mean(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """u + (t - s) / t_K net(u, t), (B, C, H, W)."""
        share = self.process.column((t - s) / self.process.times[-1]).to(u)
        return u + share * self.network(u, t, s)

    def rollout(self, times: Tensor, states: list[Tensor], rng: SampleNoise) -> Tensor:
        """The loss of the window back from its end, (B,)."""
        return self.unroll(self.reverse_mean, times.flip(0), states[::-1], rng)
