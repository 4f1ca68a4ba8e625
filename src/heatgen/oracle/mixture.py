"""The exact answers for mixtures of round Gaussians under any linear map: score, posterior, likelihood, marginals.

    u_0 ~ sum_m w_m N(mu_m, s_m^2 I),  u_t = A u_0 + b + L eps
    p_t = sum_m w_m N(A mu_m + b, V_m),  V_m = s_m^2 A A^T + L L^T,  r_m(u) = the probability of component m given u_t = u

A round Gaussian is diagonal in every orthonormal basis, so everything is by coefficient of the map's own: of its `basis`
where it has a gain, else of the singular vectors of its matrix at that level. All numbers are float64.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.forward.process import ForwardProcess, shared
from heatgen.noise import Noise


@dataclass
class Law:
    """u_t in its eigenbasis: u_t's coefficients are `gain` times u_0's, plus offset and noise.

    Args:
        into, out_of: fields (B, C, H, W) <-> coefficients of u_t, (B, D).
        back: coefficients of u_0, (B, D) -> fields.
        gain, std, offset: (B or 1, D).
        means: (M, D), of the components of u_0.
    """

    into: Callable[[Tensor], Tensor]
    out_of: Callable[[Tensor], Tensor]
    back: Callable[[Tensor], Tensor]
    gain: Tensor
    std: Tensor
    offset: Tensor
    means: Tensor


class MixtureOracle:
    """Exact answers about u_0 ~ `spec.mixture` degraded by `process`.

    `white`, where a method takes it, is the standard deviation of white noise that u was seen through in place of the
    process's own.

    Args:
        process: a map that is not drawn at random (or one that is bound to its draws).
        spec: the data's, with its `mixture`.
    Raises:
        ConfigError: where the data is no mixture, and where a state has no density (a single point without noise).
    """

    def __init__(self, process: ForwardProcess, spec: DataSpec):
        if spec.mixture is None:
            raise ConfigError("The exact answer needs data that is a mixture of Gaussians; use data=gaussian_mixture.")
        device = process.times.device
        self.process, self.shape = process, tuple(spec.shape)
        self.weights, self.means, self.stds = (
            x.double().to(device) for x in (spec.mixture.weights, spec.mixture.means, spec.mixture.stds)
        )
        self.diagonal = process.is_diagonal
        self.basis = process.basis

    # the eigenbasis --------------------------------------------------------------------------------------------------

    def law(self, t: Tensor) -> Law:
        """The law at times t, (B,) or (1,); for a map of matrices at one time, (1,)."""
        process, basis, t = self.process, self.basis, t.double()
        if not self.diagonal:
            return self._law_of_matrix(t)

        def rows(x: Tensor) -> Tensor:
            return x.double().expand(len(x), *self.shape).flatten(1)

        def into(u: Tensor) -> Tensor:
            return basis(u.double()).flatten(1)

        def out_of(c: Tensor) -> Tensor:
            return basis.inverse(c.reshape(-1, *self.shape))

        return Law(
            into, out_of, out_of, rows(process.gain(t)), rows(process.std(t)), rows(process.offset(t)), into(self.means)
        )

    def _law_of_matrix(self, t: Tensor) -> Law:
        """The law of a matrix A = U S V^T with white noise, by singular vector."""
        process, size = self.process, math.prod(self.shape)
        pixels = torch.eye(size).to(self.means).reshape(size, *self.shape)
        offset = process.mean(torch.zeros_like(pixels[:1]), t).flatten(1)
        left, gain, right = torch.linalg.svd((process.mean(pixels, t.expand(size)).flatten(1) - offset).mT)
        std = process.std(t).double().expand(1, *self.shape).flatten(1)

        def into(u: Tensor) -> Tensor:
            return torch.matmul(u.double().flatten(1), left)

        def out_of(c: Tensor) -> Tensor:
            return torch.matmul(c, left.mT).reshape(-1, *self.shape)

        def back(c: Tensor) -> Tensor:
            return torch.matmul(c, right).reshape(-1, *self.shape)

        return Law(into, out_of, back, gain[None], std, offset @ left, self.means.flatten(1) @ right.mT)

    def _each_time(self, u: Tensor, t: Tensor, answer: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        """answer(u, t), where the map is a matrix for the samples of each time, put together."""
        t = t.expand(len(u))
        if self.diagonal or len(shared(t)) == 1:
            return answer(u, t if self.diagonal else shared(t))
        parts = [(t == time, answer(u[t == time], time[None])) for time in t.unique()]
        result = parts[0][1].new_empty(len(u), *parts[0][1].shape[1:])
        for chosen, part in parts:
            result[chosen] = part
        return result

    def components(self, u: Tensor, t: Tensor, white: float | None = None) -> tuple[Law, Tensor, Tensor, Tensor]:
        """The law at t, u - A mu_m - b and V_m by coefficient, (B, M, D), and ln w_m N(u; A mu_m + b, V_m), (B, M)."""
        law = self.law(t)
        gap = law.into(u)[:, None] - (law.gain[:, None] * law.means + law.offset[:, None])
        noise = law.std**2 if white is None else torch.full_like(law.std, white**2)
        variance = law.gain[:, None] ** 2 * self.stds[:, None] ** 2 + noise[:, None]
        sentence = "u_t has no density at t = {:.3g} under forward={}: it is a set of points without noise; raise data.stds."
        check.refuse(~(variance > 0), lambda: sentence.format(t.min().item(), self.process.name))
        logs = self.weights.log() - 0.5 * (gap**2 / variance + (2 * math.pi * variance).log()).sum(2)
        return law, gap, variance, logs

    # the answers --------------------------------------------------------------------------------------------------------

    def log_prob(self, u: Tensor, t: Tensor) -> Tensor:
        """ln p_t(u) in nats, (B,) float64."""
        return self._each_time(u, t, lambda u, t: self.components(u, t)[3].logsumexp(1))

    def score(self, u: Tensor, t: Tensor) -> Tensor:
        """The gradient of ln p_t(u), -sum_m r_m V_m^-1 (u - A mu_m - b), (B, C, H, W)."""

        def answer(u: Tensor, t: Tensor) -> Tensor:
            law, gap, variance, logs = self.components(u, t)
            return law.out_of(-(logs.softmax(1)[:, :, None] * gap / variance).sum(1))

        return self._each_time(u, t, answer).to(u)

    def posterior_mean(self, u: Tensor, t: Tensor, white: float | None = None) -> Tensor:
        """E[u_0 | u_t = u] = sum_m r_m (mu_m + s_m^2 A^T V_m^-1 (u - A mu_m - b)), (B, C, H, W)."""

        def answer(u: Tensor, t: Tensor) -> Tensor:
            law, gap, variance, logs = self.components(u, t, white)
            centres = law.means + self.stds[:, None] ** 2 * law.gain[:, None] * gap / variance
            return law.back((logs.softmax(1)[:, :, None] * centres).sum(1))

        return self._each_time(u, t, answer).to(u)

    def posterior_sample(self, u: Tensor, t: Tensor, rng: Noise, white: float | None = None) -> Tensor:
        """A draw of u_0 given u_t = u, (B, C, H, W): a component by its probability, then of its Gaussian posterior."""
        chance = torch.special.ndtr(rng.normal_like(u[:, :1, :1, :1].double())).flatten(1)
        eps = rng.normal_like(u.double()).flatten(1)

        def answer(rows: Tensor, t: Tensor) -> Tensor:
            own = slice(None) if self.diagonal or len(shared(times)) == 1 else torch.isin(times, t)
            law, gap, variance, logs = self.components(rows, t, white)
            which = (logs.softmax(1).cumsum(1) < chance[own]).sum(1).clamp(max=len(self.weights) - 1)
            centres = law.means + self.stds[:, None] ** 2 * law.gain[:, None] * gap / variance
            noise_variance = law.std**2 if white is None else torch.full_like(law.std, white**2)
            spread = self.stds[:, None] * (noise_variance[:, None] / variance).sqrt()
            pick = (torch.arange(len(rows), device=u.device), which)
            return law.back(centres[pick] + spread.expand_as(centres)[pick] * eps[own])

        times = t.expand(len(u))
        return self._each_time(u, t, answer).to(u)

    def coefficients(self, u: Tensor, t: Tensor) -> Tensor:
        """The coefficients of states u at one time t, (1,), in the eigenbasis of `marginals`; (B, D)."""
        return self.law(t).into(u)

    def marginals(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of each coefficient of u_t in each component, (M, D) each, for one time, (1,).

        Coefficient d of u_t has the density sum_m weights_m N(means_md, stds_md^2).
        """
        law = self.law(t)
        means = law.gain * law.means + law.offset
        return means, (law.gain**2 * self.stds[:, None] ** 2 + law.std**2).sqrt().expand_as(means)

    def flow(self, u: Tensor, t: Tensor, s: Tensor | None = None, white: float | None = None) -> Tensor:
        """ConfigError: the probability flow of a mixture has no closed form."""
        raise ConfigError("The probability flow of a mixture has no closed form; use sampler=heun.")
