"""sampler=cold: Algorithm 2 of Cold Diffusion, for maps whose noise is the same at every level."""

from torch import Tensor

from heatgen import check
from heatgen.noise import Noise
from heatgen.sampler.interface import Denoiser, OnStep

ROUNDING = 1e-6  # of a deviation


def cold(model: Denoiser, u: Tensor, times: Tensor, rng: Noise | None = None, on_step: OnStep | None = None) -> Tensor:
    """u_0 from u_K by u_s = u_t - (A(t) v + b(t)) + A(s) v + b(s), with v = denoise(u_t, t).

    Where the degradation is u_0 + t e with one e, a step is exact whatever v is. Down to level 1 it is sampler=heun with
    order 1, state for state; the last step keeps the noise of the map, where that one returns v. For the arguments see
    `Sampler`; rng is not used.

    Raises:
        ConfigError: the noise of the map changes from level to level, and would all be left in u_0.

    Source: Bansal et al. 2023 (Cold Diffusion), Algorithm 2.
    """
    process = model.process
    sentence = "sampler=cold leaves the noise as it is, and that of forward={} changes with the level; use sampler=heun."
    for k in range(len(times) - 1, 0, -1):
        t, s = times[k].expand(len(u)), times[k - 1].expand(len(u))
        if k > 1:
            start = process.std(t)
            check.refuse((process.std(s) - start).abs() > ROUNDING * start, lambda: sentence.format(process.name))
        x0_pred = model.denoise(u, t)
        u = (u - process.mean(x0_pred, t) + process.mean(x0_pred, s)).to(u)
        if on_step is not None:
            on_step(k - 1, u)
    return u
