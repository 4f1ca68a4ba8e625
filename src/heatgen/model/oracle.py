"""model=oracle: the exact answers for Gaussian data, in the place of a trained model."""

import copy
from typing import Any

import torch
from torch import Tensor

from heatgen.check import ConfigError
from heatgen.model.denoiser import Denoiser
from heatgen.noise import Noise, SampleNoise
from heatgen.oracle.gaussian import GaussianOracle


class Oracle(Denoiser):
    """E[u_0 | u_t], score, reverse steps, posterior and flow of u_0 ~ N(0, C) under the forward map, in closed form.

    It has no weights: train.py writes a run at once, and every sampler and metric takes it like any other model. It answers
    with float64 arithmetic. ConfigError for data that is not Gaussian and for maps that are drawn at random.
    """

    learns = False
    oracle: GaussianOracle | None = None
    white: float | None = None

    def calibrate(self, data: Any) -> None:
        """Read the spectrum of the data."""
        if self.process.random:
            raise ConfigError(f"model=oracle has no closed form for forward={self.process.name}, which is drawn at random.")
        if data.spec.spectrum is None:
            raise ConfigError("model=oracle needs Gaussian data with a known spectrum; use data=grf.")
        self.oracle = GaussianOracle(self.process, data.spec)

    @property
    def exactly(self) -> GaussianOracle:
        """The oracle of `calibrate`."""
        assert self.oracle is not None, "call calibrate(data) first"
        return self.oracle

    def observed(self, white: float) -> "Oracle":
        """The model that knows its states at level K to be A u_0 + b + white noise of this deviation."""
        view = copy.copy(self)
        view.white = white
        return view

    def denoise(self, u: Tensor, t: Tensor) -> Tensor:
        """E[u_0 | u_t = u], (B, C, H, W)."""
        return self.exactly.posterior_mean(u, t)

    def denoise_variance(self, t: Tensor) -> Tensor:
        """The posterior variance by coefficient, (B, C, H, W); ConfigError for a map that is not diagonal there."""
        if not self.exactly.diagonal:
            raise ConfigError(
                f"forward={self.process.name} is not diagonal in the basis of the data; use sampler=exact, sde or heun."
            )
        return self.exactly.posterior_variance(t)

    def reverse_noise(self, eps: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The noise of the exact reverse step from t to s, coloured in the basis of the data."""
        basis = self.exactly.basis
        return basis.inverse(self.reverse_std(t, s) * basis(eps.double())).to(eps)

    def score(self, u: Tensor, t: Tensor) -> Tensor:
        """-V(t)^-1 (u - b(t)), (B, C, H, W)."""
        return self.exactly.score(u, t)

    def exact(self, u: Tensor, t: Tensor, answer: str, noise: Noise | None) -> Tensor:
        """A draw of u_0 given u_t = u ("sample"), its "mean", or the end of the probability "flow"."""
        if answer == "mean":
            return self.exactly.posterior_mean(u, t, self.white)
        if answer == "flow":
            return self.exactly.flow(u, t, white=self.white)
        return self.exactly.posterior_sample(u, t, noise or SampleNoise(range(len(u)), self.seed, "exact"), self.white)

    def loss(self, batch: dict[str, Tensor], noise: SampleNoise) -> Tensor:
        """Nothing to learn: 0 for each sample, (B,)."""
        return torch.zeros(len(batch["u0"]), device=batch["u0"].device)
