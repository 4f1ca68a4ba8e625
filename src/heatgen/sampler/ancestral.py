"""sampler=ancestral: one Gaussian reverse step a level."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from heatgen.noise import Noise


def ancestral(
    model: Any,
    u: Tensor,
    levels: Tensor,
    generator: Noise | None = None,
    on_step: Callable[[int, Tensor], None] | None = None,
) -> Tensor:
    """u_0 from u_K = u, (B, C, H, W): u_{k-1} = reverse_mean(u_k) + reverse_noise(eps), and the bare mean at the last step.

    model: needs `reverse_mean` and `reverse_noise`. levels: (K+1,) ascending times. generator: where eps comes from, torch's
    own generator if None. on_step(k, u_k) is called for k = K-1 .. 0. Source: Rissanen et al. 2023, Algorithm 2.
    """
    for k in range(len(levels) - 1, 0, -1):
        t, s = levels[k].expand(len(u)), levels[k - 1].expand(len(u))
        u = model.reverse_mean(u, t, s)
        if k > 1:
            eps = torch.randn_like(u) if generator is None else generator.normal_like(u)
            u = u + model.reverse_noise(eps, t, s)
        if on_step is not None:
            on_step(k - 1, u)
    return u


ancestral.currency = ("reverse_mean", "reverse_noise")  # type: ignore[attr-defined]  # what `run.build` asks of a model
