"""mode=elbo: the evidence lower bound of the log-likelihood, every term.

    -log p(u_0) <= L_K + sum_{k=2}^{K} L_{k-1} + L_0

for models with Gaussian reverse steps p(u_{k-1} | u_k) = N(mu(u_k, k), delta^2), delta diagonal in the map's basis, and the
prior p(u_K) = (1/N) sum_i N(A(t_K) u_0^i + b(t_K), prior_std^2) over the training images. Source: Rissanen et al. 2023,
eqs. 5 to 10 and appendix A.3. Unlike the original code, the step 1 -> 0 is counted once (as L_0) and K -> K-1 is counted.
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.metric.metric import EvalContext, Result
from heatgen.noise import SampleNoise, batches, generator

CERTAIN = 1e-6  # of the noise of a level: a reverse step with less knows a coefficient, but for rounding


def gaussian_kl(gap: Tensor, variance: Tensor, std: Tensor) -> Tensor:
    """KL(N(m, diag v) || N(m', diag std^2)) in nats, (B,), from gap = (m - m')^2 by coefficient, (B, D).

    1/2 sum [ v / std^2 + gap / std^2 - 1 - ln(v / std^2) ]; v and std broadcast to (B, D). In float64.
    """
    precision, ratio = std.double() ** -2, variance.double() / std.double() ** 2
    return 0.5 * (gap.double() * precision + (ratio - 1 - ratio.log())).sum(1)


def gaussian_nll(gap: Tensor, std: Tensor) -> Tensor:
    """-ln N(u; m, diag std^2) in nats, (B,), from gap = (u - m)^2 by coefficient, (B, D); std broadcasts to it."""
    return (gap.double() / (2 * std.double() ** 2) + (std.double() * math.sqrt(2 * math.pi)).log()).sum(1)


def prior_kl(states: Tensor, centres: Tensor, variance: Tensor, std: Tensor) -> Tensor:
    """L_K, (B,) nats: an upper bound of KL(q(u_K | u_0) || p), p the kernel density (1/N) sum_i N(centre_i, diag std^2).

    ln N - logsumexp_i(-KL_i), the bound of appendix A.3 at its optimum. states: (B, D) means of q, variance: its diagonal,
    broadcasts to (B, D); std: of the kernels, (1, 1) or (1, D); centres: (N, D). In float64, where the distances' product
    form loses nothing that matters for images in [0, 1].
    """
    states, centres, std = states.double(), centres.double(), std.double()
    gaps = torch.cdist(states / std, centres / std).square()  # (B, N)
    widths = gaussian_kl(torch.zeros_like(states), variance, std)
    return math.log(len(centres)) - torch.logsumexp(-(widths[:, None] + gaps / 2), dim=1)


def clustered_sum(values: Tensor, levels: Tensor, num_levels: int) -> tuple[Tensor, Tensor]:
    """Means by level, and each image's part in the error of their sum. values, levels: (n images, m), of 0 .. num_levels-1.

    Values of one image are dependent, so images are clusters: the part of an image is the sum of its residuals, each over
    sqrt(c (c - 1)) for a level measured c times, and the squared standard error is the sum of the squared parts.
    """
    flat = levels.flatten()
    counts = torch.bincount(flat, minlength=num_levels).double()
    means = torch.zeros(num_levels, dtype=torch.float64).index_add_(0, flat, values.double().flatten()) / counts
    weights = (counts * (counts - 1)).rsqrt()
    return means, ((values.double() - means[levels]) * weights[levels]).sum(1)


def level_errors(values: Tensor, levels: Tensor, num_levels: int) -> Tensor:
    """The standard error of each level's mean over the images that were measured there, (num_levels,)."""
    flat, x = levels.flatten(), values.double().flatten()
    zero = torch.zeros(num_levels, dtype=torch.float64)
    counts = torch.bincount(flat, minlength=num_levels).double()
    means = zero.index_add(0, flat, x) / counts
    return (zero.index_add(0, flat, (x - means[flat]).square()) / (counts * (counts - 1))).sqrt()


def balanced_levels(n: int, per_image: int, num_levels: int, seed: int) -> Tensor:
    """Levels of each of n images, (n, per_image) of 0 .. num_levels-1: all equally often, none twice an image."""
    order = torch.randperm(num_levels, generator=generator(seed, "levels"))
    images = torch.randperm(n, generator=generator(seed, "images"))
    return order[(images[:, None] * per_image + torch.arange(per_image)) % num_levels]


class ELBO:
    """All terms in nats and in bits per dimension, with standard errors over images, noise and levels.

    split: of the images; levels: how many of the K - 1 terms L_{k-1} are drawn for each image, None for all. Bytes are
    dequantised, u_0 = (255 x + U) / 256, so bits per dimension are NLL / (D ln 2) + 8. compat: the sum of the original code,
    which takes the KL of k = 1 .. K-1 where it should take k = 2 .. K; its value is not a bound.
    A map that is drawn at random is drawn once for each image, and the bound is given that draw.
    ConfigError for a model without Gaussian reverse steps, a delta or forward noise of 0, or too few evaluations.
    """

    def __init__(self, split: str = "test", levels: int | None = 10, compat: bool = False):
        self.split = check.choice("metric.split", split, ("train", "val", "test"))
        self.levels = None if levels is None else check.integer("metric.levels", levels, minimum=1)
        self.compat = check.boolean("metric.compat", compat)

    def __call__(self, ctx: EvalContext) -> Result:
        self._check(ctx)
        images = ctx.data.images(self.split)
        n = len(images) if ctx.n is None else min(check.integer("n", ctx.n, minimum=2), len(images))
        chosen = torch.randperm(len(images), generator=generator(ctx.seed, "elbo"))[:n].sort().values.tolist()
        num_terms = ctx.model.process.num_levels - 1
        per_image = num_terms if self.levels is None else min(self.levels, num_terms)
        if n < 2:
            raise ConfigError(
                f"mode=elbo needs at least 2 images, and metric.split={self.split} has {n}; use another split."
            )
        if n * per_image < 2 * num_terms:
            raise ConfigError(f"n x metric.levels = {n * per_image} must reach twice the {num_terms} terms; raise either.")
        design = balanced_levels(n, per_image, num_terms, ctx.seed)

        rows = {image: row for image, row in zip(chosen, design, strict=True)}
        middle = ctx.each(chosen, lambda run: self._middle(ctx, run, torch.stack([rows[i] for i in run])), "L_k")
        first = ctx.each(chosen, lambda run: self._first(ctx, run), "L_0")
        last = ctx.each(chosen, lambda run: self._last(ctx, run), "L_K")
        return self._result(ctx, first, middle, design, last)

    @staticmethod
    def _check(ctx: EvalContext) -> None:
        model = ctx.model
        if model is None or not hasattr(model, "reverse_mean"):
            raise ConfigError("mode=elbo needs a run whose model has Gaussian reverse steps, such as model=ihd.")
        times = model.process.times
        if model.process.withholds_cond:
            raise ConfigError("mode=elbo needs forward.conditional=true: without T, q is a mixture and has no closed KL.")
        if not (model.process.std(times[1:]) > 0).all():
            raise ConfigError("mode=elbo needs forward.sigma > 0: without noise every KL term is infinite.")
        t, s = times[1:], times[:-1]
        least = CERTAIN * model.process.std(t)
        sure = (model.reverse_std(t, s) <= least) & (model.target_std(t, s) > least)
        if sure.any() or not (model.reverse_std(t[:1], s[:1]) > 0).all() or not (model.initial_std() > 0).all():
            raise ConfigError(
                "mode=elbo needs noise wherever the forward steps have it: delta and prior_std greater than 0, or "
                "model.reverse_variance=measured, and data without a coefficient that never varies."
            )

    def _clean(self, ctx: EvalContext, run: Sequence[int]) -> Tensor:
        """Dequantised images, (B, C, H, W)."""
        u0 = ctx.data.get(self.split, run)
        if ctx.data.spec.bits is not None:
            noise = SampleNoise(run, ctx.seed, "dequantise").uniform_like(u0)
            u0 = ((255 * u0.double() + noise) / 256).float().clamp(max=1 - 2**-24)  # in [0, 1), rounding or not
        return u0.to(ctx.devices.device)

    @staticmethod
    def _model(ctx: EvalContext, run: Sequence[int]) -> Any:
        """The model, given the draws of its map for these images."""
        return ctx.model.bound(ELBO._map_noise(ctx, run))

    @staticmethod
    def _map_noise(ctx: EvalContext, run: Sequence[int]) -> SampleNoise:
        return SampleNoise(run, ctx.seed, "elbo map")

    @staticmethod
    def _gap(ctx: EvalContext, model: Any, u0: Tensor, eps: Tensor, k: Tensor) -> tuple[Tensor, Tensor]:
        """(mu(u_k, k) - target)^2 for a draw of u_k, by coefficient, (B, D); and the step's delta, (B, 1 or D)."""
        process = model.process
        t, s = process.times[k], process.times[k - 1]
        with ctx.devices.autocast(), torch.no_grad():
            u = process.perturb(u0, t, eps)
            mean = model.reverse_mean(u, t, s)
        gap = process.basis(mean.double() - model.target_mean(u0.double(), u.double(), t, s)).square()
        return gap.flatten(1), model.reverse_std(t, s).flatten(1)

    def _middle(self, ctx: EvalContext, run: Sequence[int], terms: Tensor) -> Tensor:
        """L_{k-1} of each image at its levels, (B, m); term j is k = j + 2, or j + 1 as the original code has it."""
        model, u0 = self._model(ctx, run), self._clean(ctx, run)
        noises = SampleNoise(run, ctx.seed, "elbo")
        columns = [torch.empty(len(u0), 0, dtype=torch.float64)]
        for term in terms.to(u0.device).unbind(1):
            k = term + (1 if self.compat else 2)
            gap, delta = self._gap(ctx, model, u0, noises.normal_like(u0), k)
            times = model.process.times
            sigma = model.target_std(times[k], times[(k - 1).clamp(min=1)]).flatten(1)
            least = CERTAIN * model.process.std(times[k]).flatten(1)
            certain = ((sigma <= least) & (delta <= least)).expand_as(gap)  # both sides know this coefficient
            sigma, delta = (std.expand_as(gap).masked_fill(certain, 1) for std in (sigma, delta))
            columns.append(gaussian_kl(gap.masked_fill(certain, 0), sigma**2, delta).cpu()[:, None])
        return torch.cat(columns, dim=1)

    def _first(self, ctx: EvalContext, run: Sequence[int]) -> Tensor:
        """L_0, (B,)."""
        model, u0 = self._model(ctx, run), self._clean(ctx, run)
        eps = SampleNoise(run, ctx.seed, "elbo first").normal_like(u0)
        gap, delta = self._gap(ctx, model, u0, eps, torch.ones(len(u0), dtype=torch.long, device=u0.device))
        return gaussian_nll(gap, delta)

    def _last(self, ctx: EvalContext, run: Sequence[int]) -> Tensor:
        """L_K, (B,): in blocks of training images, joined by their log-sum-exp."""
        model, u0 = ctx.model, self._clean(ctx, run)
        if not model.process.is_random:
            return self._prior(ctx, model, u0)
        drawn = model.process.draw(self._map_noise(ctx, run))  # the training images go through each image's own draw
        return torch.cat([self._prior(ctx, model.bind(d[None]), u[None]) for d, u in zip(drawn, u0, strict=True)])

    @staticmethod
    def _prior(ctx: EvalContext, model: Any, u0: Tensor) -> Tensor:
        process, last = model.process, model.process.times[-1:]
        std, variance = model.initial_std().flatten(1), process.std(last).flatten(1) ** 2

        def coefficients(u: Tensor) -> Tensor:
            return process.basis(process.mean(u.double(), last.expand(len(u)))).flatten(1)

        states, total, parts = coefficients(u0), len(ctx.data.images("train")), []
        for block in batches(range(total), 2048):
            centres = coefficients(ctx.data.get("train", block).to(u0.device))
            parts.append(math.log(len(block)) - prior_kl(states, centres, variance, std))
        return math.log(total) - torch.logsumexp(torch.stack(parts), dim=0)

    def _result(self, ctx: EvalContext, first: Tensor, middle: Tensor, design: Tensor, last: Tensor) -> Result:
        n, dimensions, num_terms = len(first), math.prod(ctx.data.spec.shape), ctx.model.process.num_levels - 1
        means, parts = clustered_sum(middle, design, num_terms)
        nats = {"L_K": last.mean().item(), "L_1..K-1": means.sum().item(), "L_0": first.mean().item()}
        errors = {"L_K": last.std().item() / n**0.5, "L_1..K-1": parts.norm().item(), "L_0": first.std().item() / n**0.5}
        nats["nll_bound"] = sum(nats.values())
        ends = first + last  # of the same images as the parts, so their errors are not independent
        errors["nll_bound"] = (parts + (ends - ends.mean()) / math.sqrt(n * (n - 1))).norm().item()
        unit = 1 / (dimensions * math.log(2))
        bits = {f"{key} [bits/dim]": value * unit for key, value in nats.items()}
        bits["nll_bound [bits/dim]"] += ctx.data.spec.bits or 0
        facts = {
            "n": n,
            "split": f"{ctx.data_name} {self.split}",
            "training images in the prior": len(ctx.data.images("train")),
            "levels": ctx.model.process.num_levels,
            "levels drawn for each image": design.shape[1],
            "delta": ctx.model.noise_label(),
            "dimensions": dimensions,
        }
        notes = []
        if not ctx.model.has_markov_forward:
            notes.append(
                "q factorises over levels, so the bound grows with K: compare it at equal K, not with DDPM-like models."
            )
        if self.compat:
            notes.append(
                "compat: the original's sum over k = 1 .. K-1 in place of 2 .. K; not a bound, for old numbers only."
            )
        first_k = 1 if self.compat else 2
        series = {
            "k": [float(k) for k in range(first_k, first_k + num_terms)],
            "L_{k-1} [nats]": means.tolist(),
            "its standard error [nats]": level_errors(middle, design, num_terms).tolist(),
        }
        return Result(
            {f"{key} [nats]": value for key, value in nats.items()} | bits,
            {f"{key} [nats]": value for key, value in errors.items()}
            | {f"{key} [bits/dim]": value * unit for key, value in errors.items()},
            facts,
            notes,
            series,
            headline=("nll_bound [bits/dim]",),
        )
