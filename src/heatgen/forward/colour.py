"""forward/colour: the noise of each coefficient beside the others', colour_i(t), mostly of mean square 1 over them."""

import math

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.composed import Composed, Measured
from heatgen.forward.moments import TINY, moments
from heatgen.forward.process import TrainingData


def wave_numbers(t: Tensor, process: Composed) -> Tensor:
    """r_i in 1/pixel, (H, W) like t, where the mean counts as the longest wave."""
    r = process.waves("forward.colour").sqrt().to(t)
    longest = torch.where(r > 0, r, torch.inf).min()
    return r.maximum(torch.where(longest.isfinite(), longest, 1.0))


def normalised(logs: Tensor) -> Tensor:
    """exp(logs) over its root mean square, computed without overflow."""
    weights = (logs - logs.max()).exp()
    return weights / weights.square().mean().sqrt()


def power(t: Tensor, process: Composed, exponent: float = -0.05) -> Tensor:
    """w_i ~ r_i^exponent, r the wave number, so that power goes like r^(2 exponent); white at 0.

    Source: Spectrally Anisotropic Gaussian Diffusion, arXiv 2510.09660.
    """
    return normalised(check.number("forward.colour.exponent", exponent) * wave_numbers(t, process).log())


def blue(t: Tensor, process: Composed, exponent: float = 1.0, tau: float = 0.2) -> Tensor:
    """g + (1 - g) b_i, b_i ~ r_i^exponent, g = tanh(3 t / 2 tau) / tanh(3 / 2 tau): blue near the data, white at t = 1.

    Source: Huang et al. 2024, "Blue noise for diffusion models": its sigmoid, and a stationary spectrum for its matrix.
    """
    tau = check.number("forward.colour.tau", tau, minimum=0.001)
    gamma = (1.5 * t / tau).tanh() / math.tanh(1.5 / tau)
    return gamma + (1 - gamma) * power(t, process, check.number("forward.colour.exponent", exponent, above=0))


def two_band(t: Tensor, process: Composed, gamma_low: float = 1.0, gamma_high: float = 0.5, cutoff: float = 0.5) -> Tensor:
    """gamma_low for waves up to `cutoff` times the highest, gamma_high above, scaled to mean square 1; both above 0.

    Source: Spectrally Anisotropic Gaussian Diffusion, arXiv 2510.09660.
    """
    low = check.number("forward.colour.gamma_low", gamma_low, above=0)
    high = check.number("forward.colour.gamma_high", gamma_high, above=0)
    r = wave_numbers(t, process)
    short = (r > check.number("forward.colour.cutoff", cutoff, above=0, maximum=0.999999) * r.max()).to(t)
    return normalised((1 - short) * math.log(low) + short * math.log(high))


def matern(t: Tensor, process: Composed, length: float = 2.0, nu: float = 0.5) -> Tensor:
    """w_i^2 ~ (2 nu / length^2 + r_i^2)^-(nu + 1), a Matern field in the plane; length in pixels, nu = 1/2: exponential.

    The mean counts as the longest wave.

    Source: Rasmussen and Williams 2006, eq. 4.15; Lim et al. 2023, arXiv 2302.07400.
    """
    length = check.number("forward.colour.length", length, minimum=1e-3, maximum=1e6)
    nu = check.number("forward.colour.nu", nu, above=0, maximum=100)
    return normalised(-(nu + 1) / 2 * (wave_numbers(t, process) ** 2 + 2 * nu / length**2).log())


class Data(Measured):
    """w_i = sqrt(C_i), C the variance of each coefficient of training images: noise drowns all of them at one time.

    White until `prepare`, which measures C on at most 10,000 images.

    Args:
        normalise: to mean square 1; false: C as it is, so that scale^2 + noise_scale^2 = 1 keeps the spectrum of u_0.
    Source: Falck et al. 2025, arXiv 2505.11278 (EqualSNR).
    """

    weights: Tensor

    def __init__(self, normalise: bool = True):
        super().__init__()
        self.normalise = check.boolean("forward.colour.normalise", normalise)

    def forward(self, t: Tensor, process: Composed) -> Tensor:
        return self.weights.to(t)

    def attach(self, process: Composed) -> None:
        self.register_buffer("weights", torch.ones(process.shape, dtype=torch.float64))

    @torch.no_grad()
    def prepare(self, process: Composed, data: TrainingData) -> None:
        mean, square = moments(process, data)
        variance = square - mean**2
        if not (overall := variance.mean()) > 0:
            raise ConfigError(f"forward={process.name} needs training images that differ, to measure their spectrum.")
        variance = variance.clamp(min=TINY * overall)
        self.weights.copy_((variance / variance.mean() if self.normalise else variance).sqrt())
