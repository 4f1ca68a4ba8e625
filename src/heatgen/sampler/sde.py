"""sampler=sde: the reverse stochastic differential equation, by Euler and Maruyama."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from heatgen import check
from heatgen.noise import Noise
from heatgen.sampler.steps import draw, steps


def sde(
    model: Any,
    u: Tensor,
    levels: Tensor,
    generator: Noise | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
    substeps: int = 1,
    noise: float = 1.0,
) -> Tensor:
    """u_0 from u_K = u, (B, C, H, W): u <- physics_step(u, t, s) + `noise` Q z, without noise on the last step.

    Q^2: the variance of the map's own step from s to t. First order in the step. model: needs `score` with its
    `physics_step`, and a map with steps. ConfigError for negative noise.
    Source: Anderson 1982; Holzschuh et al. 2023, eq. 6.
    """
    noise = check.number("sampler.noise", noise, minimum=0)
    for k, t, s in steps(levels, substeps, len(u)):
        u = model.physics_step(u, t, s, 1.0)
        if k != 0:
            u = u + model.process.colour(draw(u, generator), noise * model.process.step_std(s, t))
        if k is not None and on_step is not None:
            on_step(k, u)
    return u


sde.currency = ("score",)  # type: ignore[attr-defined]
