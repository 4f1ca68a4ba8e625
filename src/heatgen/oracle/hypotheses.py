"""The best possible prediction of frames from other frames, where u_0 is one of many templates at an unknown amplitude.

    u_0 = a f_j,  j ~ w,  a ~ U(a_0, a_1),  the map one of D = 1 .. n_D,  y_i = A_D(t_i) u_0 + b_D(t_i) + s eps_i

Given j and D, with S_1 = sum_i <y_i - b_i, A_i f_j> / s^2 and S_2 = sum_i |A_i f_j|^2 / s^2, the amplitude is integrated
in closed form,

    p(y | j, D) ~ exp(-sum_i |y_i - b_i|^2 / 2 s^2) E_a exp(S_1 a - S_2 a^2 / 2)

and p(y_T | y_C) = sum_jD w p(y_C, y_T | j, D) / sum_jD w p(y_C | j, D). Maps that are diagonal in one basis make S_1 and
S_2 products with the matrix of the templates' coefficients. All numbers are float64 and all logarithms natural.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import Basis, Cosine, Fourier, Pixel
from heatgen.check import ConfigError
from heatgen.forward.process import ForwardProcess
from heatgen.frames import Frames
from heatgen.oracle.gaussian import is_diagonal_in
from heatgen.oracle.integrals import log_average, tilted_moments
from heatgen.oracle.trajectory import Trajectory, observed

CHUNK = 2**22  # numbers of one kind that are held at a time
PASSED_OVER = 60.0  # nats below the sum of all
NEGLIGIBLE = 1e-17  # the probability below which a hypothesis adds nothing to a mean in float64

Statistics = tuple[Tensor, Tensor, Tensor]  # sums over frames: g y and g^2 by coefficient, (..., K), and |y|^2, (...)


class HypothesesTrajectory(Trajectory):
    """The exact `Trajectory` of a f_j under one of some maps.

    Args:
        templates: f, (M, C, H, W).
        weights: (M,), of the prior, on any scale.
        amplitudes: (a_0, a_1), a_0 <= a_1.
        processes: n_D maps that are not random, diagonal in one basis; only A and b count, not their noise.
        noise_std: s > 0.
        process_weights: (n_D,), of the prior, on any scale; None: equal ones.
    Raises:
        ConfigError: where these do not fit or a map is not diagonal.
    """

    def __init__(
        self,
        templates: Tensor,
        weights: Tensor,
        amplitudes: tuple[float, float],
        processes: Sequence[ForwardProcess],
        noise_std: float,
        process_weights: Tensor | None = None,
    ):
        low, high = (check.number("amplitudes", a) for a in amplitudes)
        if low > high or not processes:
            raise ConfigError("The exact prediction needs a map, and amplitudes that ascend.")
        self.processes, self.basis = list(processes), shared_basis(processes)
        self.noise_std = check.number("noise_std", noise_std, above=0)
        self.middle, self.width = (low + high) / 2, high - low
        self.shape, device = tuple(templates.shape[1:]), processes[0].times.device
        self.waves = self.basis(templates.double().to(device)).flatten(1)  # (M, K)
        self.squares = self.waves**2
        chances = torch.ones(len(processes)) if process_weights is None else process_weights
        self.prior = (log_share(chances)[:, None] + log_share(weights)).to(device)  # (n_D, M)
        if self.prior.shape != (len(processes), len(templates)):
            raise ConfigError("The exact prediction needs one weight for each template and for each map.")

    # the evidence -------------------------------------------------------------------------------------------------------

    def statistics(self, process: ForwardProcess, frames: Frames) -> Statistics:
        """What the evidence needs of each frame: (B, N, K), (B, N, K) and (B, N)."""
        gain, y = (x.flatten(2) for x in observed(process, self.basis, frames))
        return gain * y, gain**2, y.square().sum(2)

    def slopes(self, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """S_1 and S_2 of each template, (..., M)."""
        s2 = self.noise_std**2
        return statistics[0] @ self.waves.mT / s2, statistics[1] @ self.squares.mT / s2

    def logits(self, d: int, statistics: Statistics, likely: Tensor | None = None) -> Tensor:
        """log w p(y | j, D_d) but for -1/2 log 2 pi s^2 a dimension, (..., M); -inf where not likely, (..., M) bool."""
        s1, s2 = self.slopes(statistics)
        chosen = torch.ones_like(s1, dtype=torch.bool) if likely is None else likely.expand(s1.shape)
        a, b = s1[chosen], s2[chosen]
        amplitude = torch.full_like(s1, -torch.inf)
        amplitude[chosen] = log_average(self.width * (a - self.middle * b), self.width**2 * b)
        square = statistics[2][..., None] / (2 * self.noise_std**2)
        return self.prior[d] + amplitude + self.middle * (s1 - self.middle * s2 / 2) - square

    def _ratio(self, context: Frames, targets: Frames, pool: bool) -> Tensor:
        """log p(y_C, y_T) - log p(y_C) with all targets, (B,), or with each alone, (B, Nt); no constants.

        Hypotheses that the context leaves less than exp(-60) are passed over: on average, so is as much of p(y_T | y_C).
        """
        old = [add(self.statistics(process, context)) for process in self.processes]
        before = torch.stack([self.logits(d, statistics) for d, statistics in enumerate(old)])
        start, after = before.logsumexp((0, 2)), []
        likely = before > start[:, None] - PASSED_OVER
        for d, process in enumerate(self.processes):
            new = self.statistics(process, targets)
            pairs = zip(old[d], add(new), strict=True) if pool else zip((x[:, None] for x in old[d]), new, strict=True)
            gy, gg, square = (x + y for x, y in pairs)
            mask = likely[d] if pool else likely[d][:, None]
            after.append(self.logits(d, (gy, gg, square), mask).logsumexp(-1))
        return torch.stack(after).logsumexp(0) - (start if pool else start[:, None])

    def _white(self) -> float:
        return 0.5 * math.prod(self.shape) * math.log(2 * math.pi * self.noise_std**2)

    # the answers --------------------------------------------------------------------------------------------------------

    def joint(self, context: Frames, targets: Frames) -> Tensor:
        size = CHUNK // len(self.waves)
        ratio = in_parts(lambda c, t: (self._ratio(c, t, True),), context, targets, size)[0]
        return ratio - targets.count.double() * self._white()

    def frames(self, context: Frames, targets: Frames) -> Tensor:
        size = CHUNK // (len(self.waves) * max(1, targets.times.shape[1]))
        ratio = in_parts(lambda c, t: (self._ratio(c, t, False),), context, targets, size)[0]
        return torch.where(targets.mask, ratio - self._white(), 0.0)

    def moments(self, context: Frames, times: Tensor) -> tuple[Tensor, Tensor]:
        empty = torch.zeros(*times.shape, *self.shape, dtype=torch.float64, device=times.device)
        targets, size = Frames.of(times, empty), CHUNK // self.prior.numel()
        mean, second = in_parts(lambda c, t: self._moments(c, t.times), context, targets, size)
        return mean, (second - mean**2).clamp(min=0)

    def posterior(self, context: Frames) -> tuple[Tensor, Tensor, Tensor]:
        """The probability of each hypothesis given the context, and E[a], E[a^2] if it holds; (n_D, B, M) each.

        The moments are 0 where the probability is below 1e-17.
        """
        evidence = [add(self.statistics(process, context)) for process in self.processes]
        logits = torch.stack([self.logits(d, statistics) for d, statistics in enumerate(evidence)])
        chance = (logits - logits.logsumexp((0, 2), keepdim=True)).exp()
        s1, s2 = (torch.stack(x) for x in zip(*(self.slopes(statistics) for statistics in evidence), strict=True))
        likely, first, second = chance > NEGLIGIBLE, torch.zeros_like(chance), torch.zeros_like(chance)
        s1, s2 = s1[likely], s2[likely]
        mean, variance = tilted_moments(self.width * (s1 - self.middle * s2), self.width**2 * s2)
        first[likely] = self.middle + self.width * mean
        second[likely] = first[likely] ** 2 + self.width**2 * variance
        return chance, first, second

    def _moments(self, context: Frames, times: Tensor) -> tuple[Tensor, Tensor]:
        """E[u_t] and E[u_t^2] of each pixel, (B, Nt, C, H, W) each."""
        chance, first, second = self.posterior(context)
        result = torch.zeros(2, *times.shape, *self.shape, dtype=torch.float64, device=times.device)
        for d, process in enumerate(self.processes):
            for time in sorted(set(times.double().flatten().tolist())):
                b, i = (times.double() == time).nonzero(as_tuple=True)
                clock = torch.tensor([time]).to(result)
                likely = (chance[d, b] > NEGLIGIBLE).any(0)
                fields = self.waves[likely].reshape(-1, *self.shape) * process.gain(clock)
                fields = self.basis.inverse(fields).flatten(1)
                one, two = ((chance[d] * a)[b][:, likely] for a in (first[d], second[d]))
                rest = process.mean(torch.zeros_like(result[0, 0, :1]), clock)
                field = (one @ fields).reshape(-1, *self.shape)
                share = chance[d, b].sum(1)[:, None, None, None]
                result[0, b, i] += field + share * rest
                result[1, b, i] += (two @ fields**2).reshape_as(field) + 2 * rest * field + share * rest**2
        return result[0], result[1]


def shared_basis(processes: Sequence[ForwardProcess]) -> Basis:
    """The basis in which all the maps are diagonal; ConfigError where there is none."""
    basis = processes[0].basis
    for process in processes:
        same = process.basis is basis or isinstance(basis, (Cosine, Fourier, Pixel))
        if not (same and is_diagonal_in(basis, process)):
            raise ConfigError(f"forward={process.name} is not diagonal in a basis that all maps share; use forward=heat.")
    return basis


def log_share(weights: Tensor) -> Tensor:
    """log of each weight's share of the sum, float64; ConfigError for weights that are negative or all 0."""
    if not ((weights >= 0).all() and weights.sum() > 0):
        raise ConfigError("The weights of a prior must not be negative, nor all 0.")
    return (weights.double() / weights.double().sum()).log()


def add(statistics: Statistics) -> Statistics:
    """The statistics of all frames together."""
    return statistics[0].sum(1), statistics[1].sum(1), statistics[2].sum(1)


def in_parts(
    answer: Callable[[Frames, Frames], tuple[Tensor, ...]], context: Frames, targets: Frames, size: int
) -> list[Tensor]:
    """answer(context, targets) of at most `size` trajectories at a time, put together."""
    starts = range(0, max(1, len(context.times)), max(1, size))
    rows = [slice(i, i + max(1, size)) for i in starts]
    parts = [answer(context.part(r), targets.part(r)) for r in rows]
    return [torch.cat(part) for part in zip(*parts, strict=True)]
