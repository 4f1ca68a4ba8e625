"""model=supervised: u_0 from u_K in one pass of a network, the baseline of reconstruction."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, Unpack, runtime_checkable

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.data.stream import Batch
from heatgen.forward.process import ForwardProcess
from heatgen.model.module import Method, MethodSettings, OptimizerFactory
from heatgen.noise import Noise, SampleNoise
from heatgen.sampler.interface import OnStep, Sampler

LOSSES = ("supervised", "physics")
INPUTS = ("process", "white")


@runtime_checkable
class Masked(Protocol):
    """A layer that draws random masks, such as SpatialDropout."""

    source: Noise | None


@contextmanager
def masks_from(net: nn.Module, rng: Noise | None) -> Iterator[None]:
    """Within it, layers of `net` that have a `source` of random masks, such as SpatialDropout, draw them from `rng`."""
    layers = [module for module in net.modules() if isinstance(module, Masked)]
    before = [layer.source for layer in layers]
    try:
        for layer in layers:
            layer.source = rng
        yield
    finally:
        for layer, source in zip(layers, before, strict=True):
            layer.source = source


class Supervised(Method):
    """u_0 = y + net(y, K), where y is the state at the last level; it needs no sampler.

    Both losses are blind to what y has lost: supervised answers E[u_0 | y], one answer for each y. Where the network has
    dropout with a `source` (net=bayesian_unet), `generate` draws its masks from `rng`, so the draws differ.

    Args:
        loss: the mean over pixels of: supervised, |y + net(y, K) - u_0|^2; physics, |y - A(t_K) (y + net(y, K)) - b(t_K)|^2,
            which uses no u_0.
        input: process, y = u_K of the forward process; white, y = A(t_K) u_0 + b(t_K) + noise_std eps, eps white.
        noise_std: of the white input, in units of a pixel.
        settings: see `Method`.

    Raises:
        ConfigError: a value is out of range.

    Source: the baselines of Holzschuh et al. 2023.
    """

    uses_sampler = False

    def __init__(
        self,
        process: ForwardProcess,
        net: nn.Module,
        sampler: Sampler | None,
        optimizer: OptimizerFactory | None,
        loss: str = "supervised",
        input: str = "process",
        noise_std: float = 0.01,
        **settings: Unpack[MethodSettings],
    ):
        super().__init__(process, net, sampler, optimizer, **settings)
        self.target = check.choice("model.loss", loss, LOSSES)
        self.input = check.choice("model.input", input, INPUTS)
        self.noise_std = check.number("model.noise_std", noise_std, minimum=0)

    def _last(self, u: Tensor) -> Tensor:
        return self.process.times[-1:].expand(len(u))

    def predict(self, y: Tensor) -> Tensor:
        """y + net(y, K), (B, C, H, W)."""
        return y + self.network(y, self._last(y), self.process.times[:1].expand(len(y)))

    def initial_std(self) -> Tensor:
        """prior_std where given; else the noise of y over the coefficients."""
        if self.prior_std is not None or self.input == "process":
            return super().initial_std()
        return self.process.column(torch.full_like(self.process.times[-1:], self.noise_std))

    @torch.no_grad()
    def generate(self, u_last: Tensor, rng: Noise, on_step: OnStep | None = None) -> Tensor:
        """The prediction from states u_last at level K, (B, C, H, W), which on_step(0, u_0) sees too."""
        with self.calls.sampling(len(u_last)), masks_from(self.net, rng):
            u0 = self.predict(u_last)
        if on_step is not None:
            on_step(0, u0)
        return u0

    def loss(self, batch: Batch, rng: SampleNoise) -> Tensor:
        """The mean over pixels of the squared error, (B,)."""
        u0, model = batch["u0"], self.bound(rng)
        t, eps = self._last(u0), rng.normal_like(u0)
        white = self.input == "white"
        y = model.process.mean(u0, t) + self.noise_std * eps if white else model.process.perturb(u0, t, eps)
        prediction = model.predict(y)
        gap = prediction - u0 if self.target == "supervised" else y - model.process.mean(prediction, t)
        return gap.square().flatten(1).mean(1)
