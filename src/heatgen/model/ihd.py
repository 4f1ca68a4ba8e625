"""model=ihd: inverse heat dissipation, learning one step back along any forward map."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.model.module import Method
from heatgen.noise import SampleNoise

PARAMETRISATIONS = ("residual", "x0", "direct")


class IHD(Method):
    """p(u_{k-1} | u_k) = N(mu(u_k, k), delta^2 I), trained on the next less-degraded, noise-free state.

    Loss of a sample: sum over pixels of (A(t_{k-1}) u_0 + b(t_{k-1}) - mu(u_k, k))^2, k uniform on 1 .. K.
    parametrisation: residual mu = u_k + f(u_k, k); x0 mu = A(t_{k-1}) f + b(t_{k-1}); direct mu = f.
    train_top_level: false draws k from 1 .. K-1, as the original code does (its first sampling step is then untrained).
    delta: the noise of a reverse step, on the scale of pixels in [0, 1]; None means 1.25 times the forward's noise.
    ConfigError for a value out of range. Source: Rissanen et al. 2023, eqs. 9 and 10, Algorithms 1 and 2.
    """

    def __init__(
        self,
        process: nn.Module,
        net: nn.Module,
        sampler: Callable[..., Tensor],
        optimizer: Callable[..., torch.optim.Optimizer],
        parametrisation: str = "residual",
        train_top_level: bool = True,
        delta: float | None = None,
        **settings: Any,
    ):
        super().__init__(process, net, sampler, optimizer, **settings)
        self.parametrisation = check.choice("model.parametrisation", parametrisation, PARAMETRISATIONS)
        self.top_level = self.process.num_levels - (0 if check.boolean("model.train_top_level", train_top_level) else 1)
        if self.top_level < 1:
            raise ConfigError("model.train_top_level=false needs forward.num_levels of at least 2.")
        self.delta = 1.25 * float(self.process.std(self.process.times[-1:]).max()) if delta is None else delta
        check.number("model.delta", self.delta, minimum=0)

    def _mean(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        output = self.net(u, self.process.level(t).to(u)).to(u)
        if self.parametrisation == "x0":
            return self.process.mean(output, s)
        return u + output if self.parametrisation == "residual" else output

    def reverse_mean(self, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """mu: the mean of u_s given u_t = u, (B, C, H, W), for times t > s, (B,).

        ConfigError where s is not the level next to t, unless parametrisation=x0: the others learn single steps only.
        """
        one_step = ((self.process.level(t) - self.process.level(s)) - 1).abs().max() < 1e-6
        if self.parametrisation != "x0" and not one_step:
            raise ConfigError(f"model.parametrisation={self.parametrisation} takes single levels; use x0 to skip some.")
        return self._mean(u, t, s)

    def reverse_std(self, t: Tensor, s: Tensor) -> float:
        """delta."""
        return self.delta

    def loss(self, batch: dict[str, Tensor], noise: SampleNoise) -> Tensor:
        """sum over pixels of (A(t_{k-1}) u_0 + b(t_{k-1}) - mu(u_k, k))^2, (B,)."""
        u0 = batch["u0"]
        k = noise.integers(1, self.top_level).to(u0.device)
        t, s = self.process.times[k], self.process.times[k - 1]
        u = self.process.perturb(u0, t, noise.normal_like(u0))
        return (self.process.mean(u0, s) - self._mean(u, t, s)).square().flatten(1).sum(1)
