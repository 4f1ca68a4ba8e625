"""sampler=predictor_corrector: reverse steps, each followed by steps of Langevin dynamics at its level."""

from typing import Protocol, runtime_checkable

from torch import Tensor

from heatgen import check
from heatgen.noise import Noise
from heatgen.sampler.interface import OnStep, ReverseModel, ScoreModel
from heatgen.sampler.steps import draw


@runtime_checkable
class ReverseScoreModel(ReverseModel, ScoreModel, Protocol):
    """Gaussian reverse steps, and the score."""


def predictor_corrector(
    model: ReverseScoreModel,
    u: Tensor,
    times: Tensor,
    rng: Noise | None = None,
    on_step: OnStep | None = None,
    corrections: int = 1,
    rate: float = 0.1,
) -> Tensor:
    """u_0 from u_K by the steps of sampler=ancestral, and after each but the last, `corrections` times

        u <- u + r L^2 score(u, s) + sqrt(2 r) L z,   r = rate, L = the map's noise at that level, by coefficient,

    which leaves p_s as it is for small r, and repairs what the predictor got wrong.

    Args:
        corrections: Langevin steps a level.
        rate: r, in units of the noise's variance. For the others see `Sampler`.

    Raises:
        ConfigError: an option is out of range.

    Source: Song et al. 2021, Algorithm 1, with a step for each coefficient.
    """
    corrections = check.integer("sampler.corrections", corrections, minimum=0)
    rate = check.number("sampler.rate", rate, above=0)
    last = 0 if model.noise_last_step else 1
    for k in range(len(times) - 1, 0, -1):
        t, s = times[k].expand(len(u)), times[k - 1].expand(len(u))
        u = model.reverse_mean(u, t, s)
        if k > last:
            u = u + model.reverse_noise(draw(u, rng), t, s)
        for _ in range(corrections if k > 1 else 0):
            std = model.process.std(s)
            push = model.process.scale_coefficients(model.score(u, s), rate * std**2)
            u = (u + push + model.process.scale_coefficients(draw(u, rng), (2 * rate) ** 0.5 * std)).to(u)
        if on_step is not None:
            on_step(k - 1, u)
    return u
