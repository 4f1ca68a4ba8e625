"""model=heat_kernel_score: denoising score matching as simply as it can be said, s(u, t) = net(u, t) / sigma(t)."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from heatgen.check import ConfigError
from heatgen.model.module import Method, rms
from heatgen.noise import SampleNoise


class HeatKernelScore(Method):
    """s(u, t) = net(u, t) / sigma(t), an estimate of the gradient of log p_t(u), with sigma^2 = |L|_F^2 / D.

    Loss of a sample: sigma^2 / D |s(u_t, t) + L^-1 eps|^2 = |net + sigma L^-1 eps|^2 / D, with t uniform in level numbers,
    also between levels where the map is known there. Its expectation is sigma^2 / D E |s - grad log p_t|^2 and a constant,
    which is 0 for data that is a single point. The network sees u_t as it is, and t: x_0 = 0 under forward=heat_kernel asks
    of it net = -x / sigma(t), which some ways to tell it t learn far sooner than others (net.time).
    ConfigError for a map that has a level without noise.
    Source: Vincent 2011; Song et al. 2021, eq. 7, with weights sigma^2.
    """

    def __init__(
        self,
        process: nn.Module,
        net: nn.Module,
        sampler: Callable[..., Tensor],
        optimizer: Callable[..., torch.optim.Optimizer],
        **settings: Any,
    ):
        super().__init__(process, net, sampler, optimizer, **settings)
        if not (self.process.std(self.process.times[1:]) > 0).all():
            raise ConfigError(
                f"model=heat_kernel_score needs noise at each level of forward={self.process.name}; raise forward.sigma "
                "(or forward.g)."
            )

    def _output(self, u: Tensor, t: Tensor) -> Tensor:
        cond = self.process.cond(t, t)
        return self.net(u, self.process.level(t).to(u), None if cond is None else cond.to(u)).to(u)

    def score(self, u: Tensor, t: Tensor) -> Tensor:
        """An estimate of the gradient of log p_t(u) for times t > 0, (B, C, H, W)."""
        return self._output(u, t) / rms(self.process.std(t)).to(u)

    def loss(self, batch: dict[str, Tensor], noise: SampleNoise) -> Tensor:
        """|net + sigma L^-1 eps|^2 a pixel, (B,)."""
        u0, model = batch["u0"], self.bound(noise)
        process, t, eps = model.process, self.times_for(noise), noise.normal_like(u0)
        std = process.std(t)
        target = -process.scale_coefficients(eps, rms(std) / std).to(u0)
        return (model._output(process.perturb(u0, t, eps), t) - target).square().flatten(1).mean(1)
