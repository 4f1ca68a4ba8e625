"""mode=elbo: the evidence lower bound of the log-likelihood, every term.

    -log p(u_0) <= L_K + sum_{k=2}^{K} L_{k-1} + L_0

for models with Gaussian reverse steps p(u_{k-1} | u_k) = N(mu(u_k, k), delta^2 I) and the prior
p(u_K) = (1/N) sum_i N(A(t_K) u_0^i + b(t_K), prior_std^2 I) over the training images. Source: Rissanen et al. 2023,
eqs. 5 to 10 and appendix A.3. Unlike the original code, the step 1 -> 0 is counted once (as L_0) and K -> K-1 is counted.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.metric.metric import Result, Subject
from heatgen.noise import SampleNoise, batches, generator


def gaussian_kl(gap: Tensor, variance: Tensor, dimensions: int, std: float) -> Tensor:
    """KL(N(m, diag v) || N(m', std^2 I)) in nats, from gap = |m - m'|^2 (B,) and v broadcastable to (B, ..., D).

    1/2 [ sum v / std^2 + gap / std^2 - D + sum ln(std^2 / v) ]; a v of one element a sample stands for all D coefficients.
    """
    v = variance.double().flatten(1)
    repeat = dimensions / v.shape[1]
    shape = repeat * (v / std**2 - 1 - (v / std**2).log()).sum(1)
    return 0.5 * (shape + gap.double() / std**2)


def gaussian_nll(gap: Tensor, dimensions: int, std: float) -> Tensor:
    """-ln N(u; m, std^2 I) in nats, from gap = |u - m|^2, (B,)."""
    return gap.double() / (2 * std**2) + dimensions * math.log(std * math.sqrt(2 * math.pi))


def prior_kl(states: Tensor, centres: Tensor, variance: Tensor, std: float) -> Tensor:
    """L_K, (B,) nats: an upper bound of KL(q(u_K | u_0) || p), p the kernel density (1/N) sum_i N(centre_i, std^2 I).

    ln N - logsumexp_i(-KL_i), the bound of appendix A.3 at its optimum. states: (B, D) means of q, variance: its diagonal,
    (1, D') or (B, D'); centres: (N, D). Distances in float64, where the product form loses nothing that matters.
    """
    gaps = torch.cdist(states.double(), centres.double()).square()  # (B, N)
    shape = gaussian_kl(torch.zeros(1), variance, states.shape[1], std)[:, None]
    return math.log(len(centres)) - torch.logsumexp(-(shape + gaps / (2 * std**2)), dim=1)


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


def balanced_levels(n: int, per_image: int, num_levels: int, seed: int) -> Tensor:
    """Levels of each of n images, (n, per_image) of 0 .. num_levels-1: all equally often, none twice an image."""
    order = torch.randperm(num_levels, generator=generator(seed, "levels"))
    images = torch.randperm(n, generator=generator(seed, "images"))
    return order[(images[:, None] * per_image + torch.arange(per_image)) % num_levels]


class ELBO:
    """All terms in nats and in bits per dimension, with standard errors over images, noise and levels.

    split: of the images; levels: how many of the K - 1 terms L_{k-1} are drawn for each image, None for all. Bytes are
    dequantised, u_0 = (255 x + U) / 256, so bits per dimension are NLL / (D ln 2) + 8.
    ConfigError for a model without Gaussian reverse steps, a delta or forward noise of 0, or too few evaluations.
    """

    def __init__(self, split: str = "test", levels: int | None = 10):
        self.split = check.choice("metric.split", split, ("train", "val", "test"))
        self.levels = None if levels is None else check.integer("metric.levels", levels, minimum=1)

    def __call__(self, subject: Subject) -> Result:
        self._check(subject)
        images = subject.data.images(self.split)
        n = len(images) if subject.n is None else min(check.integer("n", subject.n, minimum=2), len(images))
        chosen = torch.randperm(len(images), generator=generator(subject.seed, "elbo"))[:n].sort().values.tolist()
        num_terms = subject.model.process.num_levels - 1
        per_image = num_terms if self.levels is None else min(self.levels, num_terms)
        if n < 2:
            raise ConfigError(
                f"mode=elbo needs at least 2 images, and metric.split={self.split} has {n}; use another split."
            )
        if n * per_image < 2 * num_terms:
            raise ConfigError(f"n x metric.levels = {n * per_image} must reach twice the {num_terms} terms; raise either.")
        design = balanced_levels(n, per_image, num_terms, subject.seed)

        rows = {image: row for image, row in zip(chosen, design, strict=True)}
        middle = subject.each(chosen, lambda run: self._middle(subject, run, torch.stack([rows[i] for i in run])), "L_k")
        first = subject.each(chosen, lambda run: self._first(subject, run), "L_0")
        last = subject.each(chosen, lambda run: self._last(subject, run), "L_K")
        means, parts = clustered_sum(middle, design, num_terms)
        return self._result(subject, first, means, parts, last, per_image)

    @staticmethod
    def _check(subject: Subject) -> None:
        model = subject.model
        if model is None or not hasattr(model, "reverse_mean"):
            raise ConfigError("mode=elbo needs a run whose model has Gaussian reverse steps, such as model=ihd.")
        times = model.process.times
        if not (model.process.std(times[1:]) > 0).all():
            raise ConfigError("mode=elbo needs forward.sigma > 0: without noise every KL term is infinite.")
        if not ELBO._delta(subject) > 0 or model.prior_std == 0:
            raise ConfigError("mode=elbo needs delta and prior_std greater than 0: they are the model's own noise.")

    @staticmethod
    def _delta(subject: Subject) -> float:
        times = subject.model.process.times
        return float(subject.model.reverse_std(times[-1:], times[-2:-1]))

    def _clean(self, subject: Subject, run: Sequence[int]) -> Tensor:
        """Dequantised images, (B, C, H, W)."""
        u0 = subject.data.clean(self.split, run)
        if subject.data.spec.bits is not None:
            noise = SampleNoise(run, subject.seed, "dequantise").uniform_like(u0)
            u0 = ((255 * u0.double() + noise) / 256).float().clamp(max=1 - 2**-24)  # in [0, 1), rounding or not
        return u0.to(subject.devices.device)

    def _gap(self, subject: Subject, u0: Tensor, eps: Tensor, k: Tensor) -> Tensor:
        """|mu(u_k, k) - E[u_{k-1} | u_0]|^2 for a draw of u_k, (B,)."""
        process = subject.model.process
        t, s = process.times[k], process.times[k - 1]
        with subject.devices.autocast(), torch.no_grad():
            mean = subject.model.reverse_mean(process.perturb(u0, t, eps), t, s)
        return (mean.double() - process.mean(u0.double(), s)).square().flatten(1).sum(1)

    def _middle(self, subject: Subject, run: Sequence[int], terms: Tensor) -> Tensor:
        """L_{k-1} of each image at its levels; term j is k = j + 2. (B, m)."""
        process, delta = subject.model.process, self._delta(subject)
        u0 = self._clean(subject, run)
        noises = SampleNoise(run, subject.seed, "elbo")
        columns = [torch.empty(len(u0), 0, dtype=torch.float64)]
        for term in terms.to(u0.device).unbind(1):
            k = term + 2
            gap = self._gap(subject, u0, noises.normal_like(u0), k)
            kl = gaussian_kl(gap, process.std(process.times[k - 1]) ** 2, u0[0].numel(), delta)
            columns.append(kl.cpu()[:, None])
        return torch.cat(columns, dim=1)

    def _first(self, subject: Subject, run: Sequence[int]) -> Tensor:
        """L_0, (B,)."""
        u0 = self._clean(subject, run)
        eps = SampleNoise(run, subject.seed, "elbo first").normal_like(u0)
        gap = self._gap(subject, u0, eps, torch.ones(len(u0), dtype=torch.long, device=u0.device))
        return gaussian_nll(gap, u0[0].numel(), self._delta(subject))

    def _last(self, subject: Subject, run: Sequence[int]) -> Tensor:
        """L_K, (B,): in blocks of training images, joined by their log-sum-exp."""
        model, process = subject.model, subject.model.process
        std = self._delta(subject) if model.prior_std is None else model.prior_std
        last = process.times[-1:]
        u0 = self._clean(subject, run)
        states = process.mean(u0.double(), last.expand(len(u0))).flatten(1)
        total, parts = len(subject.data.images("train")), []
        for block in batches(range(total), 2048):
            train = subject.data.clean("train", block).to(u0.device).double()
            centres = process.mean(train, last.expand(len(train))).flatten(1)
            parts.append(math.log(len(block)) - prior_kl(states, centres, process.std(last) ** 2, std))
        return math.log(total) - torch.logsumexp(torch.stack(parts), dim=0)

    def _result(self, subject: Subject, first: Tensor, means: Tensor, parts: Tensor, last: Tensor, per_image: int) -> Result:
        n, dimensions = len(first), math.prod(subject.data.spec.shape)
        nats = {"L_K": last.mean().item(), "L_1..K-1": means.sum().item(), "L_0": first.mean().item()}
        errors = {"L_K": last.std().item() / n**0.5, "L_1..K-1": parts.norm().item(), "L_0": first.std().item() / n**0.5}
        nats["nll_bound"] = sum(nats.values())
        ends = first + last  # of the same images as the parts, so their errors are not independent
        errors["nll_bound"] = (parts + (ends - ends.mean()) / math.sqrt(n * (n - 1))).norm().item()
        unit = 1 / (dimensions * math.log(2))
        bits = {f"{key} [bits/dim]": value * unit for key, value in nats.items()}
        bits["nll_bound [bits/dim]"] += subject.data.spec.bits or 0
        facts = {
            "n": n,
            "split": f"{subject.data_name} {self.split}",
            "training images in the prior": len(subject.data.images("train")),
            "levels": subject.model.process.num_levels,
            "levels drawn for each image": per_image,
            "delta": self._delta(subject),
            "dimensions": dimensions,
        }
        note = "q factorises over levels, so the bound grows with K: compare it at equal K, not with DDPM-like models."
        return Result(
            {f"{key} [nats]": value for key, value in nats.items()} | bits,
            {f"{key} [nats]": value for key, value in errors.items()}
            | {f"{key} [bits/dim]": value * unit for key, value in errors.items()},
            facts,
            [note],
            {"k": list(map(float, range(2, len(means) + 2))), "L_{k-1} [nats]": means.tolist()},
        )
