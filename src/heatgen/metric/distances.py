"""Distances between samples of numbers and mixtures of normal laws, as pure functions; one answer for each column.

samples: (n, D); weights: (M,), sum 1; means, stds: (M, D), stds >= 0: column d has the law sum_m weights_m N(means_md,
stds_md^2). A component without width is a step of the distribution function. All numbers are float64.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

CHUNK = 2**16  # numbers in the largest intermediate result
KNOTS = 2048  # places at which the law is evaluated, besides the samples
REACH = 6.5  # standard deviations to either side of a component that they cover
ATOM = 0.01  # the heaviest single point of a law that a Kolmogorov-Smirnov distance is given for
SUMMARY = {  # of `Distances.summary`: name -> label
    "mean_gap": "|mean gap|",
    "std": "std of samples",
    "std_exact": "std, exact",
    "std_over_exact": "std / exact",
    "ks": "KS",
    "ks_largest": "KS, largest",
    "w1": "W1",
    "w1_largest": "W1, largest",
    "w1_exact_draws": "W1, exact draws",
}
EXACT_KS = 0.8687  # E KS of n exact draws of a law without atoms, times sqrt(n), for large n


@dataclass
class Distances:
    """Samples beside a law, by column.

    Args:
        mean, exact_mean: (D,) of the samples and of the law.
        std, exact_std: their standard deviations, (D,).
        ks, w1: Kolmogorov-Smirnov and Wasserstein-1 distance, (D,).
        w1_exact: the Wasserstein-1 distance of as many exact draws, on average, (D,).
    """

    mean: Tensor
    exact_mean: Tensor
    std: Tensor
    exact_std: Tensor
    ks: Tensor
    w1: Tensor
    w1_exact: Tensor

    def summary(self) -> dict[str, float]:
        """Means over columns, and the largest, of the numbers that are defined; by the names of SUMMARY."""
        ratio = torch.where(self.exact_std > 0, self.std / self.exact_std, torch.nan)
        gap, known = (self.mean - self.exact_mean).abs(), self.ks[~self.ks.isnan()]
        values = (
            *(gap.mean(), self.std.mean(), self.exact_std.mean(), ratio.nanmean(), known.mean()),
            *(known.max() if len(known) else known.mean(), self.w1.mean(), self.w1.max(), self.w1_exact.mean()),
        )
        return dict(zip(SUMMARY, (value.item() for value in values), strict=True))


def cdf(x: Tensor, weights: Tensor, means: Tensor, stds: Tensor, left: bool = False) -> Tensor:
    """P(X <= x), or with `left` P(X < x), of the law of each column, (P, D) like x."""
    sharp = stds <= 0
    if sharp.all():
        return _steps(x, weights, means, left)
    scale = math.sqrt(0.5) / torch.where(sharp, torch.ones_like(stds), stds)
    mixed, rows = bool(sharp.any()), []
    for part in x.split(max(1, CHUNK // means.numel())):
        gap = means - part[:, None]
        above = torch.erfc(gap * scale)
        if mixed:
            above = torch.where(sharp, 2 * (gap < 0 if left else gap <= 0).double(), above)
        rows.append(torch.einsum("m,pmd->pd", weights / 2, above))
    return torch.cat(rows)


def _steps(x: Tensor, weights: Tensor, means: Tensor, left: bool) -> Tensor:
    """`cdf` where no component has a width."""
    places, order = means.sort(0)
    below = torch.cat([torch.zeros_like(places[:1]), weights[order].cumsum(0)])
    return below.gather(0, torch.searchsorted(places.mT.contiguous(), x.mT.contiguous(), right=not left).mT)


def pdf(x: Tensor, weights: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """The density of the law of each column at x, (P, D) like x; stds > 0."""
    rows = []
    for part in x.split(max(1, CHUNK // means.numel())):
        z = (part[:, None] - means) / stds
        rows.append(torch.einsum("m,pmd->pd", weights, (-0.5 * z**2).exp() / (stds * math.sqrt(2 * math.pi))))
    return torch.cat(rows)


def moments(weights: Tensor, means: Tensor, stds: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the law of each column, (D,) each."""
    mean = weights @ means
    return mean, (weights @ (stds**2 + (means - mean) ** 2)).sqrt()


def knots(means: Tensor, stds: Tensor) -> Tensor:
    """Places between which the distribution functions are nearly linear, unsorted; (P, D).

    Of at most 64 components, chosen evenly by their means, a grid of +-REACH deviations; and the means of all where there
    are more, or some without width.
    """
    count, order = min(64, len(means)), means.argsort(0)
    every = len(means) > count or bool((stds <= 0).any())
    chosen = order[torch.linspace(0, len(means) - 1, count).round().long()]
    grid = torch.linspace(-REACH, REACH, max(17, KNOTS // count) | 1, dtype=means.dtype, device=means.device)
    places = means.gather(0, chosen) + grid[:, None, None] * stds.gather(0, chosen)
    ends = torch.stack([(means - REACH * stds).amin(0), (means + REACH * stds).amax(0)])
    return torch.cat([places.flatten(0, 1), ends, *([means] if every else [])])


def ks(samples: Tensor, weights: Tensor, means: Tensor, stds: Tensor) -> Tensor:
    """The Kolmogorov-Smirnov distance sup_x |F_n(x) - F(x)|, (D,), with both limits at samples and steps of the law."""
    x, n = samples.double().nan_to_num(nan=math.inf).sort(0).values, len(samples)
    after = cdf(x, weights, means, stds)
    before = cdf(x, weights, means, stds, left=True) if (stds <= 0).any() else after
    return _ks(after, before, n)


def _ks(after: Tensor, before: Tensor, n: int) -> Tensor:
    """The same from the law's limits at the sorted samples: F_n is 0, 1/n, .. 1 between them."""
    steps = torch.arange(n + 1, dtype=torch.float64, device=after.device)[:, None] / n
    return torch.maximum(steps[1:] - after, before - steps[:-1]).amax(0).clamp(min=0)


def compare(samples: Tensor, weights: Tensor, means: Tensor, stds: Tensor) -> Distances:
    """Samples (n, D) beside the law: moments, `ks` and the Wasserstein-1 distance W1 = int |F_n - F| dx, each (D,).

    ks is NaN where a single point holds more than a share ATOM of the law: samples near it, but not on it, would be as far
    as can be. w1 is infinite where a sample is; its error is below 1e-3 of the law's deviation. w1_exact, what n exact draws
    have on average, is int sqrt(2 F (1 - F) / (pi n)) dx, for large n.
    """
    n, law = len(samples), (weights, means, stds)
    x = samples.double().nan_to_num(nan=math.inf, neginf=math.inf).sort(0).values
    finite = x.clamp(max=torch.finfo(torch.float32).max)
    points = torch.cat([finite, knots(means, stds)]).sort(0).values
    after = cdf(points, *law)
    before = cdf(points, *law, left=True) if (stds <= 0).any() else after
    index = torch.searchsorted(points.mT.contiguous(), finite.mT.contiguous()).mT
    distance = _ks(after.gather(0, index), before.gather(0, index), n)
    heaviest = (after - before).amax(0)
    counted = torch.searchsorted(finite.mT.contiguous(), points.mT.contiguous(), right=True).mT / n
    width = points.diff(dim=0)
    w1 = (width * _mean_gap(after[:-1] - counted[:-1], before[1:] - counted[:-1])).sum(0)
    middle = ((after[:-1] + before[1:]) / 2).clamp(0, 1)
    return Distances(
        samples.double().mean(0),
        moments(*law)[0],
        samples.double().std(0),
        moments(*law)[1],
        distance.masked_fill(heaviest > ATOM, torch.nan),
        w1.masked_fill(~x.isfinite().all(0), torch.inf),
        (width * (2 / (math.pi * n) * middle * (1 - middle)).sqrt()).sum(0),
    )


def _mean_gap(a: Tensor, b: Tensor) -> Tensor:
    """The mean of |y| for y that runs linearly from a to b."""
    crossing = (a**2 + b**2) / (2 * (a - b).abs()).clamp(min=torch.finfo(torch.float64).tiny)
    return torch.where(a * b >= 0, (a + b).abs() / 2, crossing)
