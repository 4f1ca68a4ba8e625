"""sampler=momentum: the momentum sampler of Soft Diffusion, whose steps keep a part of the noise whatever the map does."""

from torch import Tensor

from heatgen import check
from heatgen.noise import Noise
from heatgen.sampler.interface import GaussianDenoiser, OnStep
from heatgen.sampler.steps import draw

FORMS = ("posterior", "sde")
ROUNDING = 1e-6  # of a deviation


def momentum(
    model: GaussianDenoiser,
    u: Tensor,
    times: Tensor,
    rng: Noise | None = None,
    on_step: OnStep | None = None,
    form: str = "posterior",
) -> Tensor:
    """u_0 from u_K by u_s = A(s) v + b(s) + r (u_t - A(t) v - b(t)) + q z, v = denoise(u_t, t), r = L(s)^2 / L(t)^2.

    The part of the noise that stays is r by coefficient, whatever A does: q^2 = L(s)^2 (1 - r), so that u_s has the noise
    L(s), or q^2 = L(t)^2 - L(s)^2, a step of the reverse equation. Where L is the same at both ends, r = 1 and q = 0. The
    last step returns v. It is of first order: the variance that samples lack falls with the number of levels.

    Args:
        form: of q: posterior or sde; for the others see `Sampler`.

    Raises:
        ConfigError: form is none of these, or the noise of a coefficient is less at a later time.

    Source: Daras et al. 2023 (Soft Diffusion), momentum sampler.
    """
    process = model.process
    check.choice("sampler.form", form, FORMS)
    sentence = "sampler=momentum needs noise that never shrinks with t, but that of forward={} does; use sampler=heun."
    for k in range(len(times) - 1, 0, -1):
        t, s = times[k].expand(len(u)), times[k - 1].expand(len(u))
        x0_pred, start, end = model.denoise(u, t), process.std(t), process.std(s)
        check.refuse(end > start * (1 + ROUNDING), lambda: sentence.format(process.name))
        kept = (end / start.clamp(min=1e-30)).clamp(max=1) ** 2
        moved = process.mean(x0_pred, s) + process.scale_coefficients(u - process.mean(x0_pred, t), kept)
        if k > 1:
            variance = end**2 * (1 - kept) if form == "posterior" else start**2 - end**2
            moved = moved + process.scale_coefficients(draw(u, rng), variance.clamp(min=0).sqrt())
        u = moved.to(u)
        if on_step is not None:
            on_step(k - 1, u)
    return u
