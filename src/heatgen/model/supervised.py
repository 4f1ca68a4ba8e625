"""model=supervised: u_0 from u_K in one pass of a network, the baseline of reconstruction."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.model.module import Method, OnStep
from heatgen.noise import Noise, SampleNoise

LOSSES = ("supervised", "physics")
INPUTS = ("process", "white")


@contextmanager
def masks_from(net: nn.Module, noise: Noise | None) -> Iterator[None]:
    """Within it, layers of `net` that have a `source` of random masks, such as SpatialDropout, draw them from `noise`."""
    layers: list[Any] = [module for module in net.modules() if hasattr(module, "source")]
    before = [layer.source for layer in layers]
    try:
        for layer in layers:
            layer.source = noise
        yield
    finally:
        for layer, source in zip(layers, before, strict=True):
            layer.source = source


class Supervised(Method):
    """u_0 = y + net(y, K), where y is the state at the last level; it needs no sampler.

    input: process, y = u_K of the forward process; white, y = A(t_K) u_0 + b(t_K) + noise_std eps with white noise eps.
    loss, the mean over pixels of: supervised, |y + net(y, K) - u_0|^2; physics, |y - A(t_K) (y + net(y, K)) - b(t_K)|^2,
    which uses no u_0. Both are blind to what y has lost: supervised answers E[u_0 | y], one answer for each y. Where the
    network has dropout with a `source` (net=bayesian_unet), `generate` draws its masks from `noise`, so the draws differ.
    ConfigError for values out of range. Source: the baselines of Holzschuh et al. 2023.
    """

    uses_sampler = False

    def __init__(
        self,
        process: nn.Module,
        net: nn.Module,
        sampler: Callable[..., Tensor],
        optimizer: Callable[..., torch.optim.Optimizer],
        loss: str = "supervised",
        input: str = "process",
        noise_std: float = 0.01,
        **settings: Any,
    ):
        super().__init__(process, net, sampler, optimizer, **settings)
        self.target = check.choice("model.loss", loss, LOSSES)
        self.input = check.choice("model.input", input, INPUTS)
        self.noise_std = check.number("model.noise_std", noise_std, minimum=0)

    def _last(self, u: Tensor) -> Tensor:
        return self.process.times[-1:].expand(len(u))

    def predict(self, y: Tensor) -> Tensor:
        """y + net(y, K), (B, C, H, W)."""
        t, s = self._last(y), self.process.times[:1].expand(len(y))
        cond = self.process.cond(t, s)
        return y + self.net(y, self.process.level(t).to(y), None if cond is None else cond.to(y)).to(y)

    def initial_std(self) -> Tensor:
        """prior_std where given; else the noise of y over the coefficients."""
        if self.prior_std is not None or self.input == "process":
            return super().initial_std()
        return self.process.column(torch.full_like(self.process.times[-1:], self.noise_std))

    @torch.no_grad()
    def generate(self, u_last: Tensor, noise: Noise, on_step: OnStep | None = None) -> Tensor:
        """The prediction from states u_last at level K, (B, C, H, W), which on_step(0, u_0) sees too."""
        with masks_from(self.net, noise):
            u0 = self.predict(u_last)
        if on_step is not None:
            on_step(0, u0)
        return u0

    def loss(self, batch: dict[str, Tensor], noise: SampleNoise) -> Tensor:
        """The mean over pixels of the squared error, (B,)."""
        u0, model = batch["u0"], self.bound(noise)
        t, eps = self._last(u0), noise.normal_like(u0)
        white = self.input == "white"
        y = model.process.mean(u0, t) + self.noise_std * eps if white else model.process.perturb(u0, t, eps)
        guess = model.predict(y)
        gap = guess - u0 if self.target == "supervised" else y - model.process.mean(guess, t)
        return gap.square().flatten(1).mean(1)
