"""forward/colour: the noise of each coefficient beside the others', colour_i(t), of mean square 1 over the coefficients."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.part import Part, option
from heatgen.forward.process import TrainingData
from heatgen.noise import batches

if TYPE_CHECKING:
    from heatgen.forward.composed import Composed

MEASURED = 10_000  # training images at most that a spectrum is measured on
LEAST = 1e-6  # of a weight beside the largest: beyond, float32 and the variances of steps lose it
TINY = 1e-10  # the least variance of a coefficient that is measured, in units of the mean one


@dataclass(eq=False)
class Colour(Part):
    """Weights w_i that an author gives by the waves of the basis."""

    uses_waves = True

    def logs(self, waves: Tensor) -> Tensor:
        """ln w_i but for a constant, from wave numbers in 1/pixel, (H, W), where the mean counts as the longest wave."""
        raise NotImplementedError

    def attach(self, process: "Composed") -> None:
        super().attach(process)
        waves = process.eigenvalues.sqrt()
        logs = self.logs(waves.clamp(min=waves[waves > 0].min() if waves.any() else 1))
        weights = (logs - logs.max()).exp()
        if not weights.min() >= LEAST:  # also for NaN
            raise ConfigError(
                f"{self.key} of forward={process.name} leaves some wave less than {LEAST:g} of the noise of another; use "
                "options nearer to white noise."
            )
        self.register_buffer("weights", weights / weights.square().mean().sqrt(), persistent=False)

    def forward(self, t: Tensor, process: "Composed") -> Tensor:
        return self.get_buffer("weights").to(t)


@dataclass(eq=False)
class Power(Colour):
    """w_i ~ r_i^exponent, r the wave number, so that power goes like r^(2 exponent); white at 0.

    Args:
        exponent: negative: noise in long waves; positive: in short ones.
    Source: Spectrally Anisotropic Gaussian Diffusion, arXiv 2510.09660.
    """

    exponent: float = option(-0.05, check.number)

    def logs(self, waves: Tensor) -> Tensor:
        return self.exponent * waves.log()


@dataclass(eq=False)
class Blue(Power):
    """gamma(t) + (1 - gamma(t)) b_i, b_i ~ r_i^exponent: blue noise near the data, white at t = 1.

    gamma = tanh(3 t / 2 tau) / tanh(3 / 2 tau), the paper's sigmoid from 0 to 3.

    Args:
        exponent: of b.
        tau: how late the noise gets white; above 0.
    Source: Huang et al. 2024, "Blue noise for diffusion models", with a stationary spectrum for its matrix.
    """

    exponent: float = option(1.0, check.number, above=0)
    tau: float = option(0.2, check.number, minimum=0.001)

    def forward(self, t: Tensor, process: "Composed") -> Tensor:
        gamma = (1.5 * t / self.tau).tanh() / math.tanh(1.5 / self.tau)
        return gamma + (1 - gamma) * self.get_buffer("weights").to(t)


@dataclass(eq=False)
class TwoBand(Colour):
    """gamma_low for waves up to a share of the highest wave number, gamma_high above it, but for a common factor.

    Args:
        gamma_low, gamma_high: above 0.
        cutoff: the share, in (0, 1).
    Source: Spectrally Anisotropic Gaussian Diffusion, arXiv 2510.09660.
    """

    gamma_low: float = option(1.0, check.number, above=0)
    gamma_high: float = option(0.5, check.number, above=0)
    cutoff: float = option(0.5, check.number, above=0, maximum=0.999999)

    def logs(self, waves: Tensor) -> Tensor:
        low = (waves <= self.cutoff * waves.max()).to(waves)
        return low * math.log(self.gamma_low) + (1 - low) * math.log(self.gamma_high)


@dataclass(eq=False)
class Matern(Colour):
    """w_i^2 ~ (2 nu / length^2 + r_i^2)^-(nu + 1), the spectrum of a Matern field in the plane.

    Args:
        length: of correlation, in pixels; above 0.
        nu: smoothness, above 0; 0.5: an exponential correlation.
    Source: Rasmussen and Williams 2006, eq. 4.15; Lim et al. 2023, arXiv 2302.07400.
    """

    length: float = option(2.0, check.number, above=0)
    nu: float = option(0.5, check.number, above=0)

    def logs(self, waves: Tensor) -> Tensor:
        return -(self.nu + 1) / 2 * (waves**2 + 2 * self.nu / self.length**2).log()


@dataclass(eq=False)
class Data(Part):
    """w_i = sqrt(C_i), C the variance of each coefficient of training images: noise drowns all of them at one time.

    White until `prepare`, which measures C on at most 10,000 images; the weights are in the checkpoint.

    Args:
        normalise: to mean square 1; false: C as it is, so that scale^2 + noise_scale^2 = 1 keeps the spectrum of u_0.
    Source: Falck et al. 2025, arXiv 2505.11278 (EqualSNR).
    """

    normalise: bool = option(True, check.boolean)

    def attach(self, process: "Composed") -> None:
        self.register_buffer("weights", torch.ones(process.shape, dtype=torch.float64))

    @torch.no_grad()
    def prepare(self, process: "Composed", data: TrainingData) -> None:
        n, weights = min(MEASURED, len(data.images("train"))), self.get_buffer("weights")
        total = torch.zeros(2, *process.shape).to(weights)
        for indices in batches(range(n), 1024):
            c = process.basis(data.get("train", indices).to(total))
            total += torch.stack([c.sum(0), c.square().sum(0)])
        variance = total[1] / n - (total[0] / n) ** 2
        if not (mean := variance.mean()) > 0:
            raise ConfigError(f"forward={process.name} needs training images that differ, to measure their spectrum.")
        variance = variance.clamp(min=TINY * mean)
        weights.copy_((variance / variance.mean() if self.normalise else variance).sqrt())

    def forward(self, t: Tensor, process: "Composed") -> Tensor:
        return self.get_buffer("weights").to(t)
