"""sampler=ode: the probability-flow ordinary differential equation, by Euler."""

from torch import Tensor

from heatgen import check
from heatgen.noise import Noise
from heatgen.sampler.interface import OnStep, ScoreModel
from heatgen.sampler.steps import step_of, steps


def ode(
    model: ScoreModel,
    u: Tensor,
    times: Tensor,
    rng: Noise | None = None,
    on_step: OnStep | None = None,
    substeps: int = 1,
    factor: float = 0.5,
    step: str = "physics",
) -> Tensor:
    """u_0 from u_K by steps with `factor` times the score and no noise; of first order.

    Factor 1/2: the probability flow, whose end is distributed like the data. Factor 1: the mean path, which for Gaussian
    data ends in the posterior mean: as the step shrinks for a true score, with any step for what model=smdp should learn.

    Args:
        substeps: equal steps from one level to the next.
        factor: of the score, at least 0.
        step: physics, u <- physics_step(u, t, s), the map's own step reversed, which no mode makes stiff; euler,
            u <- u - (t - s) (f - factor g^2 score) with the map's drift f and diffusion g at t. For the others see
            `Sampler`; rng is not used: the flow has no noise.

    Raises:
        ConfigError: an option is out of range, or the map has no such step.

    Source: Song et al. 2021, eq. 13; Holzschuh et al. 2023, eq. 7.
    """
    factor, back = check.number("sampler.factor", factor, minimum=0), step_of(model, step)
    for k, t, s in steps(times, substeps, len(u)):
        u = back(u, t, s, factor)
        if k is not None and on_step is not None:
            on_step(k, u)
    return u
