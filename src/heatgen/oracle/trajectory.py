"""The best possible prediction of frames from other frames of a trajectory, for Gaussian data.

    u_0 ~ N(m, C),  y_i = A(t_i) u_0 + b(t_i) + s eps_i    with white eps_i of every frame, that of t = 0 too

Where A is diagonal in the basis of the data, every coefficient is on its own: with gains g_i, the variance v of u_0 and
the context c,

    V = 1 / (1 / v + sum_c g_c^2 / s^2),  M = m + V sum_c g_c (y_c - b_c - g_c m) / s^2

All numbers are float64 and all logarithms natural.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import Basis, Cosine, Fourier, Separable
from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.forward.process import ForwardProcess
from heatgen.frames import Frames
from heatgen.noise import Noise
from heatgen.oracle.gaussian import is_diagonal_in


class Trajectory(Protocol):
    """What is known exactly of target frames given context frames; Nc or Nt may be 0, and no context is the prior.

    Frames that the mask leaves out change nothing, and have 0 as their own log-density.
    """

    noise_std: float  # s, of the noise of every frame

    def joint(self, context: Frames, targets: Frames) -> Tensor:
        """log p(all target frames | context) in nats, (B,)."""

    def frames(self, context: Frames, targets: Frames) -> Tensor:
        """log p(one target frame | context) in nats, each alone, (B, Nt)."""

    def moments(self, context: Frames, times: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and variance of each pixel of the clean u_t given the context, (B, Nt, C, H, W) each."""

    def mean(self, context: Frames, times: Tensor) -> Tensor:
        """E[u_t | context] of the clean field at times (B, Nt), (B, Nt, C, H, W)."""
        return self.moments(context, times)[0]

    def variance(self, context: Frames, times: Tensor) -> Tensor:
        """The variance of each pixel of the clean u_t given the context, (B, Nt, C, H, W)."""
        return self.moments(context, times)[1]


class GaussianTrajectory(Trajectory):
    """The exact `Trajectory` of u_0 ~ N(m, C) under `process`, C diagonal in the basis of the data's walls.

    Args:
        process: only its A and b count, not its own noise; for a map that is drawn at random, one that is bound to its
            draws, for each of the B trajectories or for all.
        spec: the data's, with its `spectrum` and its `mean`.
        noise_std: s > 0.
    Raises:
        ConfigError: where the data is not Gaussian or A is not diagonal in its basis.
    """

    def __init__(self, process: ForwardProcess, spec: DataSpec, noise_std: float):
        if spec.spectrum is None:
            raise ConfigError("The exact prediction needs Gaussian data with a known spectrum; use data=grf.")
        self.process, self.shape = process, tuple(spec.shape)
        self.noise_std = check.number("noise_std", noise_std, above=0)
        device = process.times.device
        self.basis: Basis = (Fourier if spec.boundary == "periodic" else Cosine)(*self.shape[-2:]).to(device)
        self.spectrum = spec.spectrum.double().expand(self.shape).to(device)
        self.centre = None if spec.mean is None else self.basis(spec.mean.double().to(device))  # m, by coefficient
        if not is_diagonal_in(self.basis, process):
            raise ConfigError(
                f"forward={process.name} is not diagonal in the basis of the data, and the exact prediction needs that; "
                f"use forward=heat for data with insulating walls, forward=stochastic_heat for periodic data."
            )

    def posterior(self, context: Frames) -> tuple[Tensor, Tensor]:
        """M and V of each coefficient of u_0 given the context, (B, C, H, W) each; V = 1 / precision, 0 where v is 0."""
        gain, y = observed(self.process, self.basis, context)
        total = self.noise_std**2 + self.spectrum * gain.square().sum(1)
        y = y if self.centre is None else y - gain * self.centre
        mean = self.spectrum * (gain * y).sum(1) / total
        return mean if self.centre is None else self.centre + mean, self.spectrum * self.noise_std**2 / total

    def joint(self, context: Frames, targets: Frames) -> Tensor:
        """log p(targets | context) in nats, (B,).

        By coefficient, with r_i = y_i - b_i - g_i M and q = 1 + V sum_i g_i^2 / s^2:
        -1/2 (sum_i r_i^2 / s^2 - V (sum_i g_i r_i / s^2)^2 / q + log q + Nt log 2 pi s^2).
        """
        mean, variance = self.posterior(context)
        gain, y = observed(self.process, self.basis, targets)
        rest, s2 = y - gain * mean[:, None], self.noise_std**2
        q = 1 + variance * gain.square().sum(1) / s2
        square = rest.square().sum(1) / s2 - variance * ((gain * rest).sum(1) / s2) ** 2 / q
        white = targets.count.double() * math.prod(self.shape) * math.log(2 * math.pi * s2)
        return -0.5 * ((square + q.log()).flatten(1).sum(1) + white)

    def frames(self, context: Frames, targets: Frames) -> Tensor:
        """log p(y_i | context) in nats of each target alone, N(g_i M + b_i, g_i^2 V + s^2) by coefficient; (B, Nt)."""
        mean, variance = self.posterior(context)
        gain, y = observed(self.process, self.basis, targets)
        total = gain**2 * variance[:, None] + self.noise_std**2
        logs = -0.5 * ((y - gain * mean[:, None]) ** 2 / total + (2 * math.pi * total).log())
        return torch.where(targets.mask, logs.flatten(2).sum(2), 0.0)

    def moments(self, context: Frames, times: Tensor) -> tuple[Tensor, Tensor]:
        return self.mean(context, times), self.variance(context, times)

    def mean(self, context: Frames, times: Tensor) -> Tensor:
        """E[u_t | context] = A(t) M + b(t), (B, Nt, C, H, W)."""
        return self._move(self.posterior(context)[0], times)

    def variance(self, context: Frames, times: Tensor) -> Tensor:
        gain = by_frame(self.process.gain, times, self.shape)
        return pixel_variance(self.basis, gain**2 * self.posterior(context)[1][:, None])

    def sample(self, context: Frames, times: Tensor, rng: Noise) -> Tensor:
        """A draw of the clean trajectory given the context, (B, Nt, C, H, W): one u_0, moved to all times."""
        mean, variance = self.posterior(context)
        return self._move(mean + variance.sqrt() * rng.normal_like(mean), times)

    def _move(self, coefficients: Tensor, times: Tensor) -> Tensor:
        """A(t) u_0 + b(t) for the coefficients of u_0, (B, Nt, C, H, W)."""
        gain = by_frame(self.process.gain, times, self.shape)
        return self.basis.inverse(gain * coefficients[:, None]) + offsets(self.process, times, self.shape)


def noise_ceiling(noise_std: float) -> float:
    """The most that any prediction can reach on average in nats a dimension, -log s - 1/2 log 2 pi - 1/2: only s unknown."""
    return -math.log(noise_std) - 0.5 * math.log(2 * math.pi) - 0.5


def by_frame(function: Callable[[Tensor], Tensor], times: Tensor, shape: tuple[int, ...]) -> Tensor:
    """function(t) -> broadcastable to (B, *shape) at the times (B, N) of all frames, (B, N, *shape) float64."""
    result = torch.empty(*times.shape, *shape, dtype=torch.float64, device=times.device)
    for i, t in enumerate(times.double().unbind(1)):
        result[:, i] = function(t)
    return result


def offsets(process: ForwardProcess, times: Tensor, shape: tuple[int, ...]) -> Tensor:
    """b(t) as a field, (B, N, C, H, W)."""
    zero = torch.zeros(len(times), *shape, dtype=torch.float64, device=times.device)
    return by_frame(lambda t: process.mean(zero, t), times, shape)


def observed(process: ForwardProcess, basis: Basis, frames: Frames) -> tuple[Tensor, Tensor]:
    """g_i and y_i - b(t_i) over the coefficients, (B, N, C, H, W) float64 each; 0 for frames that are not there."""
    there, shape = frames.mask[:, :, None, None, None], tuple(frames.values.shape[2:])
    times = frames.times.where(frames.mask, 0)
    y = basis(frames.values.double() - offsets(process, times, shape))
    return torch.where(there, by_frame(process.gain, times, shape), 0.0), torch.where(there, y, 0.0)


def pixel_variance(basis: Basis, variance: Tensor) -> Tensor:
    """sum_k phi_k(x)^2 v_k, the variance of each pixel where coefficient k has v_k and all are independent; (..., H, W).

    Cosines are separable: two products with squared matrices. For Fourier, phi_k(x)^2 = (1 + sin 2 theta) / (H W) with
    theta = 2 pi k x, so it is (sum_k v_k - Im F[v](2 x)) / (H W) with the FFT F that is not normalised.
    """
    if isinstance(basis, Separable):
        return basis.rows.to(variance).square().mT @ variance @ basis.columns.to(variance).square()
    height, width = variance.shape[-2:]
    y, x = (2 * torch.arange(n, device=variance.device) % n for n in (height, width))
    waves: Tensor = torch.fft.fft2(variance).imag[..., y[:, None], x[None, :]]
    return ((variance.sum((-2, -1), keepdim=True) - waves) / (height * width)).clamp(min=0)
