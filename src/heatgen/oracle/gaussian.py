"""The exact answers for Gaussian data under any linear map: score, posterior, likelihood, probability flow.

    u_0 ~ N(m, C),  u_t = A u_0 + b + L eps,  V(t) = A C A^T + L L^T
    E[u_0 | u_t] = m + C A^T V^-1 (u_t - A m - b),  score = -V^-1 (u_t - A m - b)

Where the map is diagonal in the basis of the data (or a number), every coefficient is on its own. Any other map is a matrix
over all pixels. All numbers are float64.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import Basis, Cosine, Fourier
from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.forward.process import ForwardProcess, shared
from heatgen.noise import Noise

MEMORY = 2**31  # bytes of matrices that are kept
LARGEST = 4096  # coefficients of a field, where a matrix over all of them is needed


class GaussianOracle:
    """Exact answers about u_0 ~ N(m, C) degraded by `process`, C diagonal in the basis of the data's walls.

    `white`, where a method takes it, is the standard deviation of white noise that u was seen through in place of the
    process's own. u: (B, C, H, W); t: (B,).

    Args:
        process: a map that is not drawn at random (or one that is bound to its draws).
        spec: the data's, with its `spectrum` and its `mean`.
    Raises:
        ConfigError: where the data is not Gaussian or the map is too large.
    """

    def __init__(self, process: ForwardProcess, spec: DataSpec):
        if spec.spectrum is None:
            raise ConfigError("The exact answer needs Gaussian data with a known spectrum; use data=grf.")
        self.process = process
        self.basis: Basis = (Fourier if spec.boundary == "periodic" else Cosine)(*spec.shape[-2:]).to(process.times.device)
        self.spectrum = spec.spectrum.double().expand(*spec.shape).to(process.times.device)
        self.mean = None if spec.mean is None else spec.mean.double().to(process.times.device)
        self.diagonal = is_diagonal_in(self.basis, process) and (
            type(process.basis) is type(self.basis) or process.std(process.times[-1:])[0].numel() == 1
        )
        if not self.diagonal and math.prod(spec.shape) > LARGEST:
            raise ConfigError(
                f"forward={process.name} is not diagonal in the basis of the data, and the exact answer then needs at most "
                f"{LARGEST} pixels; use a smaller field, or forward=stochastic_heat."
            )
        self.weights = torch.ones(1, dtype=torch.float64, device=self.spectrum.device)  # of its one component
        self._matrices: dict[float, tuple[Tensor, Tensor]] = {}

    # the two kinds of algebra -----------------------------------------------------------------------------------------

    def gain(self, t: Tensor) -> Tensor:
        """A(t) over the data's coefficients, for a diagonal map."""
        return self.process.gain(t.double())

    def noise_variance(self, t: Tensor, white: float | None = None) -> Tensor:
        """L(t)^2 over the data's coefficients, or that of the white noise, for a diagonal map."""
        std = self.process.std(t.double())
        return std**2 if white is None else torch.full_like(std, white**2)

    def variance(self, t: Tensor, white: float | None = None) -> Tensor:
        """V(t) over the data's coefficients, (B, C, H, W); ConfigError for a map that is not diagonal there."""
        if not self.diagonal:
            raise ConfigError(
                f"forward={self.process.name} is not diagonal in the basis of the data; use sampler.answer=sample."
            )
        return self.gain(t) ** 2 * self.spectrum + self.noise_variance(t, white)

    def dense(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """C A^T and A C A^T + L L^T over all pixels for one time, (1,); (D, D) each."""
        key = float(t)
        if key not in self._matrices:
            shape, size = self.spectrum.shape, self.spectrum.numel()
            pixels = torch.eye(size, dtype=torch.float64, device=self.spectrum.device).reshape(size, *shape)
            times = t.double().expand(size)
            gain = self._linear(pixels, times).flatten(1)  # row i: A applied to pixel i, that is, A^T
            covariance = self.basis.inverse(self.spectrum * self.basis(pixels)).flatten(1)
            cross, noise = covariance @ gain, self._noise(pixels, times).flatten(1)
            if len(self._matrices) >= max(1, MEMORY // (16 * size**2)):
                self._matrices.clear()
            self._matrices[key] = cross, gain.mT @ cross + noise.mT @ noise
        return self._matrices[key]

    def _noise(self, eps: Tensor, t: Tensor) -> Tensor:
        return self.process.scale_coefficients(eps, self.process.std(t))

    def _linear(self, u: Tensor, t: Tensor) -> Tensor:
        return self.process.mean(u, t) - self.process.mean(torch.zeros_like(u), t)

    def _each_time(self, u: Tensor, t: Tensor, change: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """change(rows (b, D), time (1,)) for the samples of each time, put together; (B, C, H, W)."""
        t, result = shared(t.expand(len(u))), torch.empty_like(u)
        if len(t) == 1:
            return change(u.flatten(1), t).reshape(u.shape)
        for time in t.unique():
            chosen = t == time
            result[chosen] = change(u[chosen].flatten(1), time[None]).reshape(-1, *u.shape[1:])
        return result

    def _covariance(self, t: Tensor, white: float | None) -> tuple[Tensor, Tensor]:
        cross, total = self.dense(t)
        if white is None:
            return cross, total
        times = t.double().expand(len(total))
        pixels = torch.eye(len(total), dtype=torch.float64, device=total.device).reshape(-1, *self.spectrum.shape)
        own = self._noise(pixels, times).flatten(1)
        return cross, total - own.mT @ own + white**2 * torch.eye(len(total)).to(total)

    def precision(self, residual: Tensor, t: Tensor, white: float | None = None) -> Tensor:
        """V(t)^-1 times a field, (B, C, H, W); 0 where both are 0."""
        residual = residual.double()
        if self.diagonal:
            return self.basis.inverse(divide(self.basis(residual), self.variance(t, white)))
        if white is None:
            sentence = f"The exact answer for forward={self.process.name} on this data needs noise; raise forward.sigma."
            check.refuse(~(self.process.std(t) > 0), lambda: sentence)
        solve = lambda rows, time: torch.linalg.solve(self._covariance(time, white)[1], rows.mT).mT  # noqa: E731
        return self._each_time(residual, t, solve)

    def recall(self, field: Tensor, t: Tensor) -> Tensor:
        """C A(t)^T times a field, (B, C, H, W)."""
        if self.diagonal:
            return self.basis.inverse(self.spectrum * self.gain(t) * self.basis(field))
        return self._each_time(field, t, lambda rows, time: rows @ self.dense(time)[0].mT)

    def coefficients(self, u: Tensor, t: Tensor) -> Tensor:
        """The coefficients of states u in the eigenbasis of `marginals`; (B, D)."""
        return self.basis(u.double()).flatten(1)

    def marginals(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each coefficient of u_t, (1, D) each, for one time, (1,); for a diagonal map."""
        variance = self.variance(t)
        b = self.centre(torch.zeros(1, *self.spectrum.shape).to(variance), t.double())
        return self.basis(b).flatten(1), variance.expand(1, *self.spectrum.shape).flatten(1).sqrt()

    # the answers --------------------------------------------------------------------------------------------------------

    def centre(self, like: Tensor, t: Tensor) -> Tensor:
        """E[u_t] = A m + b, for fields like these, (B, C, H, W) float64."""
        zero = torch.zeros_like(like, dtype=torch.float64)
        return self.process.mean(zero if self.mean is None else zero + self.mean, t)

    def residual(self, u: Tensor, t: Tensor) -> Tensor:
        """u - E[u_t], float64."""
        return u.double() - self.centre(u, t)

    def around(self, deviation: Tensor) -> Tensor:
        """m plus a field."""
        return deviation if self.mean is None else self.mean + deviation

    def score(self, u: Tensor, t: Tensor) -> Tensor:
        """The gradient of log p_t(u), -V^-1 (u - A m - b), (B, C, H, W)."""
        return -self.precision(self.residual(u, t), t).to(u)

    def posterior_mean(self, u: Tensor, t: Tensor, white: float | None = None) -> Tensor:
        """E[u_0 | u_t = u], (B, C, H, W)."""
        return self.around(self.recall(self.precision(self.residual(u, t), t, white), t)).to(u)

    def prior_sample(self, rng: Noise, like: Tensor) -> Tensor:
        """A draw of u_0 - m, (B, C, H, W) float64."""
        return self.basis.inverse(self.spectrum.sqrt() * rng.normal_like(like.double()))

    def posterior_sample(self, u: Tensor, t: Tensor, rng: Noise, white: float | None = None) -> Tensor:
        """A draw of u_0 given u_t = u, (B, C, H, W): a joint draw (u_0', u_t'), moved by E[u_0 | u_t] - E[u_0 | u_t'].

        Source: Matheron's rule (Journel and Huijbregts 1978).
        """
        u0 = self.prior_sample(rng, u)
        eps = rng.normal_like(u0)
        noise = self._noise(eps, t) if white is None else white * eps
        residual = self.residual(u, t) - self._linear(u0, t) - noise
        return self.around(u0 + self.recall(self.precision(residual, t, white), t)).to(u)

    def posterior_variance(self, t: Tensor, white: float | None = None) -> Tensor:
        """The variance of each coefficient of u_0 given u_t, S q / (A^2 S + q), (B, C, H, W), for a diagonal map."""
        q = self.noise_variance(t, white)
        return divide(self.spectrum * q, self.variance(t, white))

    def posterior_covariance(self, t: Tensor, white: float | None = None) -> Tensor:
        """C - C A^T V^-1 A C over all pixels, (D, D), for one time, (1,)."""
        cross, total = self._covariance(t, white)
        pixels = torch.eye(len(total)).to(total).reshape(-1, *self.spectrum.shape)
        prior = self.basis.inverse(self.spectrum * self.basis(pixels)).flatten(1)
        posterior: Tensor = prior - cross @ torch.linalg.solve(total, cross.mT)
        return posterior

    def standardise(self, u0: Tensor, u: Tensor, t: Tensor, white: float | None = None) -> Tensor:
        """u_0 given u_t = u in units of the exact posterior's deviations, (B, C, H, W); NaN where nothing is uncertain.

        By coefficient of the data's basis, or of the posterior covariance's eigenvectors for a map that is not diagonal.
        """
        gap = u0.double() - self.posterior_mean(u.double(), t, white)
        if self.diagonal:
            return certain_is_nan(self.basis(gap), self.posterior_variance(t, white).expand_as(gap)).to(u)

        def rotate(rows: Tensor, time: Tensor) -> Tensor:
            values, vectors = torch.linalg.eigh(self.posterior_covariance(time, white))
            return certain_is_nan(rows @ vectors, values.expand_as(rows))

        return self._each_time(gap, t, rotate).to(u)

    def minimum_mse(self, t: Tensor, white: float | None = None) -> float:
        """The least mean squared error of u_0 given u_t a pixel, the mean posterior variance; t: (1,)."""
        if self.diagonal:
            return self.posterior_variance(t, white).mean().item()
        return self.posterior_covariance(t, white).diagonal().mean().item()

    def log_prob(self, u: Tensor, t: Tensor) -> Tensor:
        """log p_t(u) in nats, (B,) float64; over the coefficients that are not certain."""
        residual = self.residual(u, t)
        square = (residual * self.precision(residual, t)).flatten(1).sum(1)
        if self.diagonal:
            variance = self.variance(t).expand_as(residual).flatten(1)
        else:
            times = t.expand(len(u))
            variance = torch.stack([torch.linalg.eigvalsh(self.dense(time[None])[1]) for time in times])
        known = variance > 1e-13 * variance.amax(1, keepdim=True)
        logs = torch.where(known, (2 * math.pi * variance.clamp(min=1e-300)).log(), torch.zeros_like(variance))
        return -0.5 * (square + logs.sum(1))

    def flow(self, u: Tensor, t: Tensor, s: Tensor | None = None, white: float | None = None) -> Tensor:
        """Where the probability flow takes u from time t to s (None: 0): E[u_s] + sqrt(V(s) / V(t)) (u - E[u_t]).

        With white noise in u it takes the law of such states to that of u_s.
        ConfigError for a map that is not diagonal in the basis of the data.
        """
        end = torch.zeros_like(t) if s is None else s
        factor = divide(self.variance(end), self.variance(t, white)).sqrt()
        b = self.centre(u, end)
        return (b + self.basis.inverse(factor * self.basis(self.residual(u, t)))).to(u)


def is_diagonal_in(basis: Basis, process: ForwardProcess) -> bool:
    """Whether A of the process is diagonal in `basis` (Cosine, Fourier or Pixel): it is its own kind, or A is a number."""
    if not process.is_diagonal:
        return False
    return type(process.basis) is type(basis) or process.is_scalar


def divide(numerator: Tensor, denominator: Tensor) -> Tensor:
    """numerator / denominator, and 0 where the denominator is."""
    return torch.where(denominator == 0, 0.0, numerator / torch.where(denominator == 0, 1.0, denominator))


def certain_is_nan(values: Tensor, variance: Tensor) -> Tensor:
    """values / sqrt(variance), NaN where the variance is nothing beside the largest one."""
    certain = variance <= 1e-10 * variance.max()
    return torch.where(certain, torch.full_like(values, torch.nan), values / variance.clamp(min=1e-300).sqrt())
