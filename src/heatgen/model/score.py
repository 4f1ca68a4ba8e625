"""What every method that knows the score of p_t has in common: two steps back that are made of it."""

from torch import Tensor

from heatgen import check
from heatgen.model.module import Method


class ScoreMethod(Method):
    """A method that writes `score(u, t)`; sampler=sde and ode take it (`heatgen.sampler.interface.ScoreModel`)."""

    def score(self, u: Tensor, t: Tensor) -> Tensor:
        """An estimate of the gradient of log p_t(u), (B, C, H, W), for times t > 0, (B,)."""
        raise NotImplementedError

    def physics_step(self, u: Tensor, t: Tensor, s: Tensor, factor: float) -> Tensor:
        """One step of the score and the physics backwards: w - P(w) with w = u + factor Q^2 score(u, t).

        P is the `increment` and Q^2 the variance of the map's step forward from s to t. Subtracting what the step forward
        would add is the stable stand-in, 2 - a by coefficient, for the inverse 1 / a of a step that multiplies by a: first
        order in t - s, and no mode is stiff.

        Args:
            u: states at t, (B, C, H, W).
            t: where the step starts, (B,).
            s: where it ends, s < t.
            factor: of the score: 1 gives the mean of the reverse SDE's step, 1/2 the probability flow.

        Raises:
            ConfigError: the map has no step from s to t.

        Source: Holzschuh et al. 2023, section 2.
        """
        process = self.process
        denoised = u + process.scale_coefficients(self.score(u, t), factor * process.step_std(s, t) ** 2)
        return (denoised - process.increment(denoised, s, t)).to(u)

    def euler_step(self, u: Tensor, t: Tensor, s: Tensor, factor: float) -> Tensor:
        """One explicit Euler step of the reverse equation: u - (t - s) (f(u, t) - factor g(t)^2 score(u, t)).

        f and g are the map's `drift` and `diffusion`; u, t, s and factor as in `physics_step`. ConfigError where A(t) cannot
        be inverted.

        Source: Song et al. 2021, eqs. 6 and 13.
        """
        process = self.process
        sentence = "A({:.4g}) of forward={} is not invertible, so its drift is infinite; use sampler.step=physics or "
        sentence += "another sampler."
        check.refuse(~process.rate(t).isfinite(), lambda: sentence.format(t.max().item(), process.name))
        slope = process.drift(u, t) - process.scale_coefficients(self.score(u, t), factor * process.diffusion(t) ** 2)
        return (u - process.column(t - s) * slope).to(u)
