"""model=oracle: the exact answers for Gaussian data and mixtures, in the place of a trained model."""

import copy
import logging
from typing import Self

import torch
from torch import Tensor

from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.data.stream import Batch
from heatgen.model.denoiser import DenoisingMethod
from heatgen.noise import Noise, SampleNoise
from heatgen.oracle.find import exact_answers
from heatgen.oracle.gaussian import GaussianOracle
from heatgen.oracle.law import law_of
from heatgen.oracle.mixture import MixtureOracle
from heatgen.runtime import ranks
from heatgen.runtime.peers import ALONE, Peers

log = logging.getLogger("heatgen")
MEASURED = 1024  # validation samples that the spread of a mixture's posterior is measured on


class Oracle(DenoisingMethod):
    """E[u_0 | u_t], score, reverse steps and posterior of u_0 under the forward map, in closed form.

    For u_0 ~ N(m, C) (data=grf, or any data with data.law=measure) and mixtures of round Gaussians (data=gaussian_mixture,
    point, two_points). Gaussian reverse steps are exact for N(m, C); of a mixture they have the exact mean, and the mean
    posterior variance, which is measured on validation samples. It has no weights: train.py writes a run at once, and every
    sampler and metric takes it like any other model. It answers with float64 arithmetic. `calibrate` raises ConfigError for
    data whose law is not known or is not what they assert, and for maps that are drawn at random.
    """

    trainable = False
    not_compiled = "model=oracle has no network"
    oracle: GaussianOracle | MixtureOracle | None = None
    white: float | None = None

    def calibrate(self, data: DataModule, peers: Peers = ALONE) -> None:
        """Read the law of the data, which its samples are compared with."""
        if self.process.is_random:
            raise ConfigError(f"model=oracle has no closed form for forward={self.process.name}, which is drawn at random.")
        law = law_of(data)
        self.oracle = exact_answers(self.process, law.spec)
        if self.oracle is None and law.refusal:
            raise ConfigError(f"model=oracle has no exact answers: {law.refusal}.")
        if self.oracle is None:
            raise ConfigError(
                "model=oracle needs data whose law is known; use data=grf, gaussian_mixture or point, or data.law=measure."
            )
        for note in law.notes if ranks.rank() == 0 else []:
            log.warning("Note: %s", note)
        if isinstance(self.oracle, MixtureOracle) and self.oracle.diagonal:
            self.measure(data, MEASURED, peers)

    @property
    def exactly(self) -> GaussianOracle | MixtureOracle:
        """The oracle of `calibrate`."""
        assert self.oracle is not None, "call calibrate(data) first"
        return self.oracle

    def observed(self, white: float) -> Self:
        """The model that knows its states at level K to be A u_0 + b + white noise of this deviation."""
        informed = copy.copy(self)
        informed.white = white
        return informed

    def denoise(self, u: Tensor, t: Tensor) -> Tensor:
        """E[u_0 | u_t = u], (B, C, H, W)."""
        self.calls.all += len(u)
        return self.exactly.posterior_mean(u, t)

    def denoise_variance(self, t: Tensor) -> Tensor | None:
        """The posterior variance by coefficient, (B, C, H, W); ConfigError for a map that is not diagonal there."""
        if isinstance(self.exactly, MixtureOracle):
            return self.errors_at(t) if self.exactly.diagonal else None
        if not self.exactly.diagonal:
            raise ConfigError(
                f"forward={self.process.name} is not diagonal in the basis of the data; use sampler=exact, sde or heun."
            )
        return self.exactly.posterior_variance(t)

    def reverse_noise(self, eps: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """The noise of the reverse step from t to s, scaled in the basis of the exact answers, (B, C, H, W)."""
        basis = self.exactly.basis
        return basis.inverse(self.reverse_std(t, s) * basis(eps.double())).to(eps)

    def score(self, u: Tensor, t: Tensor) -> Tensor:
        """The gradient of log p_t(u), (B, C, H, W)."""
        self.calls.all += len(u)
        return self.exactly.score(u, t)

    def exact(self, u: Tensor, t: Tensor, answer: str, rng: Noise | None) -> Tensor:
        """See `heatgen.sampler.interface.ExactModel`; rng: of the draw; None: a stream of the model's own for each row."""
        self.calls.all += len(u)
        if answer == "mean":
            return self.exactly.posterior_mean(u, t, self.white)
        if answer == "flow":
            return self.exactly.flow(u, t, white=self.white)
        return self.exactly.posterior_sample(u, t, rng or SampleNoise(range(len(u)), self.seed, "exact"), self.white)

    def loss(self, batch: Batch, rng: SampleNoise) -> Tensor:
        """Nothing to learn: 0 for each sample, (B,)."""
        return torch.zeros(len(batch["u0"]), device=batch["u0"].device)
