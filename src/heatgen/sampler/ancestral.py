"""sampler=ancestral: one Gaussian reverse step a level."""

from torch import Tensor

from heatgen import check
from heatgen.noise import Noise
from heatgen.sampler.interface import OnStep, ReverseModel
from heatgen.sampler.steps import draw


def ancestral(
    model: ReverseModel,
    u: Tensor,
    times: Tensor,
    rng: Noise | None = None,
    on_step: OnStep | None = None,
    stochastic: bool = True,
) -> Tensor:
    """u_0 from u_K: u_{k-1} = reverse_mean(u_k) + reverse_noise(eps); the last step is the bare mean.

    With the model's `noise_last_step` the last step has noise too.

    Args:
        stochastic: false: every step is the bare mean, a deterministic path. For the others see `Sampler`.

    Source: Rissanen et al. 2023, Algorithm 2.
    """
    check.boolean("sampler.stochastic", stochastic)
    last = 0 if model.noise_last_step else 1  # the lowest level whose step from above has noise
    for k in range(len(times) - 1, 0, -1):
        t, s = times[k].expand(len(u)), times[k - 1].expand(len(u))
        u = model.reverse_mean(u, t, s)
        if stochastic and k > last:
            u = u + model.reverse_noise(draw(u, rng), t, s)
        if on_step is not None:
            on_step(k - 1, u)
    return u
