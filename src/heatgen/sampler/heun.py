"""sampler=heun: the probability flow of a denoiser, by Heun's second-order steps."""

from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.noise import Noise
from heatgen.sampler.interface import Denoiser, OnStep
from heatgen.sampler.steps import steps


def heun(
    model: Denoiser,
    u: Tensor,
    times: Tensor,
    rng: Noise | None = None,
    on_step: OnStep | None = None,
    substeps: int = 1,
    order: int = 2,
) -> Tensor:
    """u_0 from u_K along du = dA v + db + dL eps with v = denoise(u, t), eps = L^-1 (u - A v - b).

    Order 1 holds v and eps over a step (DDIM); order 2 averages them with those at its end, but for the last step, where
    L = 0 and eps is unknown: where that step is as long as the others it is of first order, so end with short ones
    (forward.spacing=quadratic). No mode is stiff in this form. It needs no step of the map, so it takes any.

    Args:
        model: its estimate of u_0 is taken.
        u: states u_K at the last of the times, (B, C, H, W).
        times: (K + 1,) ascending, on the map's clock.
        rng: not used: the flow has no noise.
        on_step: called with (k, u_k) for k = K-1 .. 0.
        substeps: equal steps from one level to the next.
        order: 2 (Heun) or 1 (DDIM).

    Returns:
        u_0, (B, C, H, W).

    Raises:
        ConfigError: substeps or order are out of range.

    Source: Song et al. 2021 (DDIM), eq. 12; Karras et al. 2022, Algorithm 1, with operators for numbers.
    """
    process = model.process
    if check.integer("sampler.order", order, minimum=1) > 2:
        raise ConfigError(f"sampler.order must be 2 (Heun) or 1 (DDIM), not {order}.")
    for k, t, s in steps(times, substeps, len(u)):
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
