"""sampler=heun: the probability flow of a denoiser, by Heun's second-order steps."""

import math

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.noise import Noise
from heatgen.sampler.interface import Denoiser, OnStep
from heatgen.sampler.steps import draw, steps

MOST_CHURN = 2**0.5 - 1  # of sigma in one step


def heun(
    model: Denoiser,
    u: Tensor,
    times: Tensor,
    rng: Noise | None = None,
    on_step: OnStep | None = None,
    substeps: int = 1,
    order: int = 2,
    churn: float = 0.0,
    churn_min: float = 0.0,
    churn_max: float | None = None,
    churn_noise: float = 1.0,
) -> Tensor:
    """u_0 from u_K along du = dA v + db + dL eps with v = denoise(u, t), eps = L^-1 (u - A v - b).

    Order 1 holds v and eps over a step (DDIM); order 2 averages them with those at its end, but for the last step, where
    L = 0 and eps is unknown: where that step is as long as the others it is of first order, so end with short ones
    (forward.spacing=quadratic). No mode is stiff in this form. It needs no step of the map, so it takes any.

    With churn each step begins with one forward, to the time where the map's noise-to-signal ratio sigma is
    1 + min(churn / N, sqrt 2 - 1) times as large, N the number of steps; not beyond level K.

    Args:
        substeps: equal steps from one level to the next.
        order: 2 (Heun) or 1 (DDIM).
        churn: S_churn, at least 0.
        churn_min: S_tmin, the least sigma of a step that begins so.
        churn_max: S_tmax, the largest; None: any.
        churn_noise: S_noise, in units of the noise of the map's own step. For the others see `Sampler`.

    Raises:
        ConfigError: an option is out of range, or churn is wanted of a map that has no noisy steps.

    Source: Song et al. 2021 (DDIM), eq. 12; Karras et al. 2022, Algorithms 1 and 2, with operators for numbers.
    """
    process = model.process
    if check.integer("sampler.order", order, minimum=1) > 2:
        raise ConfigError(f"sampler.order must be 2 (Heun) or 1 (DDIM), not {order}.")
    churn = check.number("sampler.churn", churn, minimum=0)
    least = check.number("sampler.churn_min", churn_min, minimum=0)
    most = math.inf if churn_max is None else check.number("sampler.churn_max", churn_max, minimum=least)
    churn_noise = check.number("sampler.churn_noise", churn_noise, minimum=0)
    path = list(steps(times, substeps, len(u)))
    starts: list[Tensor | None] = [None] * len(path)
    if churn:
        times = torch.stack([t[0] for _, t, _ in path])
        starts = process.raised(times, 1 + min(churn / len(path), MOST_CHURN), least, most)
    for (k, t, s), start in zip(path, starts, strict=True):
        if start is not None:
            start = start.expand(len(u))
            noise = process.scale_coefficients(draw(u, rng), churn_noise * process.step_std(t, start))
            u, t = (u + process.increment(u, t, start) + noise).to(u), start
        x0_pred = model.denoise(u, t)
        eps = model.noise_estimate(u, t, x0_pred)
        change = process.std(s) - process.std(t)
        rest = u - process.mean(x0_pred, t)
        end = (rest + process.mean(x0_pred, s) + process.scale_coefficients(eps, change)).to(u)
        if order > 1 and k != 0:
            x0_end = model.denoise(end, s)
            x0_pred, eps = (x0_pred + x0_end) / 2, (eps + model.noise_estimate(end, s, x0_end)) / 2
            moved = u - process.mean(x0_pred, t) + process.mean(x0_pred, s)
            end = (moved + process.scale_coefficients(eps, change)).to(u)
        u = end
        if k is not None and on_step is not None:
            on_step(k, u)
    return u
