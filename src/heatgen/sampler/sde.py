"""sampler=sde: the reverse stochastic differential equation, by Euler and Maruyama."""

from torch import Tensor

from heatgen import check
from heatgen.noise import Noise
from heatgen.sampler.interface import OnStep, ScoreModel
from heatgen.sampler.steps import draw, step_of, steps


def sde(
    model: ScoreModel,
    u: Tensor,
    times: Tensor,
    rng: Noise | None = None,
    on_step: OnStep | None = None,
    substeps: int = 1,
    noise_scale: float = 1.0,
    step: str = "physics",
) -> Tensor:
    """u_0 from u_K by steps with the score and `noise_scale` Q z, without noise on the last step; of first order.

    Args:
        substeps: equal steps from one level to the next.
        noise_scale: of the noise, in units of the map's own, at least 0.
        step: physics, u <- physics_step(u, t, s) + Q z, Q^2 the variance of the map's own step from s to t; euler (Euler and
            Maruyama), u <- u - (t - s) (f - g^2 score) + Q z, Q = g sqrt(t - s), with drift f and diffusion g at t. For
            the others see `Sampler`.

    Raises:
        ConfigError: an option is out of range, or the map has no such step.

    Source: Anderson 1982; Holzschuh et al. 2023, eq. 6.
    """
    process = model.process
    noise_scale, back = check.number("sampler.noise_scale", noise_scale, minimum=0), step_of(model, step)
    for k, t, s in steps(times, substeps, len(u)):
        u = back(u, t, s, 1.0)
        if k != 0:
            std = process.step_std(s, t) if step == "physics" else process.diffusion(t) * process.column(t - s).sqrt()
            u = u + process.scale_coefficients(draw(u, rng), noise_scale * std)
        if k is not None and on_step is not None:
            on_step(k, u)
    return u
