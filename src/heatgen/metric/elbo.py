"""mode=elbo: the evidence lower bound of the log-likelihood, every term.

    -log p(u_0) <= L_K + sum_{k=2}^{K} L_{k-1} + L_0

for models with Gaussian reverse steps p(u_{k-1} | u_k) = N(mu(u_k, k), delta^2), delta diagonal in the map's basis, and the
prior p(u_K) = (1/N) sum_i N(A(t_K) u_0^i + b(t_K), prior_std^2) over the training images. Source: Rissanen et al. 2023,
eqs. 5 to 10 and appendix A.3. Unlike the original code, the step 1 -> 0 is counted once (as L_0) and K -> K-1 is counted.
"""

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.metric import bound
from heatgen.metric.best_network import BestNetwork
from heatgen.metric.context import FIX, EvalContext
from heatgen.metric.reduction import LogSums
from heatgen.metric.result import Result, Series, Value, few_samples
from heatgen.metric.tiles import PAIRS, samples_at_once, tiles
from heatgen.metric.trivial import compare_with_trivial
from heatgen.model.module import Method
from heatgen.noise import SampleNoise, batches
from heatgen.oracle.law import law_of
from heatgen.sampler.interface import ReverseModel

TERMS = {"l_last": "L_K", "l_middle": "L_1..K-1", "l_first": "L_0", "nll_bound": "NLL bound"}  # name -> label
CERTAIN = 1e-6  # of the noise of a level: a reverse step with less knows a coefficient, but for rounding


def coefficients(model: Method, u: Tensor) -> Tensor:
    """Those of the mean of u_K given u_0 = u, (B, D) float64."""
    process = model.process
    return process.basis(process.mean(u.double(), process.times[-1:].expand(len(u)))).flatten(1)


class ELBO:
    """All terms in nats and in bits per dimension, with standard errors over images, noise and levels.

    Bytes are dequantised, u_0 = (255 x + U) / 256, so bits per dimension are NLL / (D ln 2) + 8; beside them what trivial
    coders need (`trivial`), above which a bound is vacuous. A map that is drawn at
    random is drawn once for each image, and the bound is given that draw. Where the law of the data is known, `exact_gap`
    is how much lower the bound would be with the means of the best network (`BestNetwork`) and the same delta, over the
    same draws: sum_k E |mu - mu*|^2 / (2 delta_k^2) >= 0.

    Args:
        split: of the images, train, val or test.
        levels: how many of the K - 1 terms L_{k-1} are drawn for each image; None: all.
        compat: the sum of the original code, which takes the KL of k = 1 .. K-1 where it should take k = 2 .. K; its value
            is not a bound.

    Raises:
        ConfigError: for a model without Gaussian reverse steps, a delta or forward noise of 0, or too few evaluations.
    """

    draws_samples = False

    def __init__(self, split: str = "test", levels: int | None = 10, compat: bool = False):
        self.split = check.choice("metric.split", split, ("train", "val", "test"))
        self.levels = None if levels is None else check.integer("metric.levels", levels, minimum=1)
        self.compat = check.boolean("metric.compat", compat)

    def __call__(self, ctx: EvalContext) -> Result:
        model = self._check(ctx)
        chosen = ctx.choose("elbo", self.split, "elbo")
        n = len(chosen)
        num_terms = model.process.num_levels - 1
        per_image = num_terms if self.levels is None else min(self.levels, num_terms)
        if n * per_image < 2 * num_terms:
            raise ConfigError(f"n x metric.levels = {n * per_image} must reach twice the {num_terms} terms; raise either.")
        design = bound.balanced_levels(n, per_image, num_terms, ctx.seed)

        terms = dict(zip(chosen, design, strict=True))
        best, notes = None, law_of(ctx.data).notes
        try:
            best = BestNetwork.find(model.process, law_of(ctx.data).spec)
        except ConfigError as error:
            notes = [*notes, f"no exact gap: {error}"]

        def given(batch: Sequence[int]) -> BestNetwork | None:
            return best and best.given(model.process, law_of(ctx.data).spec, self._map_rng(ctx, batch))

        def of_levels(batch: Sequence[int]) -> Tensor:
            return self._middle(ctx, given(batch), batch, torch.stack([terms[i] for i in batch]))

        middle = ctx.each(chosen, of_levels, "L_k")
        first = ctx.each(chosen, lambda batch: self._first(ctx, given(batch), batch), "L_0")
        last = self._last(ctx, chosen)
        result = self._result(ctx, first[:, 0], middle[:, 0], design, last)
        result.notes += notes
        if best is not None and not self.compat:
            self._add_gap(ctx, first[:, 1], middle[:, 1], design, result)
        compare_with_trivial(result, "nll_bound", ctx.data, self.split, chosen)
        return result

    @staticmethod
    def _check(ctx: EvalContext) -> Method:
        model = ctx.model
        if model is None or not isinstance(model, ReverseModel):
            raise ConfigError("mode=elbo needs a run whose model has Gaussian reverse steps, such as model=ihd.")
        times = model.process.times
        if model.process.random_noise_only:
            raise ConfigError(f"mode=elbo needs Gaussian noise, which forward={model.process.name} has not; use mode=fid.")
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
        return model

    @staticmethod
    def _model(ctx: EvalContext, indices: Sequence[int]) -> Method:
        """The model, given the draws of its map for these images."""
        return ctx.trained("elbo").bound(ELBO._map_rng(ctx, indices))

    @staticmethod
    def _map_rng(ctx: EvalContext, indices: Sequence[int]) -> SampleNoise:
        return SampleNoise(indices, ctx.seed, "elbo map")

    @staticmethod
    def _gap(
        ctx: EvalContext, model: Method, best: BestNetwork | None, u0: Tensor, eps: Tensor, k: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """(mu(u_k, k) - target)^2 for a draw of u_k, by coefficient, (B, D); the step's delta, (B, 1 or D); (mu - mu*)^2.

        The last is 0 where nothing is known of the best network.
        """
        assert isinstance(model, ReverseModel)
        process = model.process
        t, s = process.times[k], process.times[k - 1]
        with ctx.devices.autocast(), torch.no_grad():
            u = process.perturb(u0, t, eps)
            mean = model.reverse_mean(u, t, s)
        gap = process.basis(mean.double() - model.target_mean(u0.double(), u.double(), t, s)).square()
        above = torch.zeros_like(gap) if best is None else process.basis(mean.double() - best.mean(model, u, t, s)).square()
        return gap.flatten(1), model.reverse_std(t, s).flatten(1), above.flatten(1)

    def _middle(self, ctx: EvalContext, best: BestNetwork | None, indices: Sequence[int], terms: Tensor) -> Tensor:
        """L_{k-1} of each image at its levels and its exact gap, (B, 2, m).

        Term j is k = j + 2, or j + 1 as the original code has it.
        """
        model, u0 = self._model(ctx, indices), ctx.dequantised(self.split, indices, torch.float32)
        rng = SampleNoise(indices, ctx.seed, "elbo")
        columns = [torch.empty(len(u0), 2, 0, dtype=torch.float64)]
        for term in terms.to(u0.device).unbind(1):
            k = term + (1 if self.compat else 2)
            gap, delta, above = self._gap(ctx, model, best, u0, rng.normal_like(u0), k)
            times = model.process.times
            sigma = model.target_std(times[k], times[(k - 1).clamp(min=1)]).flatten(1)
            least = CERTAIN * model.process.std(times[k]).flatten(1)
            certain = ((sigma <= least) & (delta <= least)).expand_as(gap)  # both sides know this coefficient
            sigma, delta = (std.expand_as(gap).masked_fill(certain, 1) for std in (sigma, delta))
            kl = bound.gaussian_kl(gap.masked_fill(certain, 0), sigma**2, delta)
            lost = (above.masked_fill(certain, 0) / (2 * delta.double() ** 2)).sum(1)
            columns.append(torch.stack([kl, lost], dim=1).cpu()[:, :, None])
        return torch.cat(columns, dim=2)

    def _first(self, ctx: EvalContext, best: BestNetwork | None, indices: Sequence[int]) -> Tensor:
        """L_0 and its exact gap, (B, 2)."""
        model, u0 = self._model(ctx, indices), ctx.dequantised(self.split, indices, torch.float32)
        eps = SampleNoise(indices, ctx.seed, "elbo first").normal_like(u0)
        first = torch.ones(len(u0), dtype=torch.long, device=u0.device)
        gap, delta, above = self._gap(ctx, model, best, u0, eps, first)
        return torch.stack([bound.gaussian_nll(gap, delta), (above / (2 * delta.double() ** 2)).sum(1)], dim=1)

    def _last(self, ctx: EvalContext, chosen: Sequence[int]) -> Tensor:
        """L_K of each image, (n,): over tiles of training images, which the processes share out; see `tiles`."""
        model, shape = ctx.trained("elbo"), ctx.data.spec.shape
        total, dimensions = len(ctx.data.images("train")), math.prod(shape)
        draw = model.process.draw(self._map_rng(ctx, chosen[:1]))
        std = model.initial_std().double().flatten(1).expand(1, dimensions)
        which = torch.arange(dimensions, device=std.device)
        if draw is None and model.process.is_diagonal and ctx.data.spec.bits is not None:
            gain = model.process.gain(model.process.times[-1:]).double()
            which = bound.telling(gain.expand(1, *shape).flatten(), std[0]).nonzero()[:, 0]
        size = samples_at_once(len(which) + (0 if draw is None else draw.numel()))
        variance = model.process.std(model.process.times[-1:]).flatten(1) ** 2
        last = bound.gaussian_kl(std.new_zeros(1, dimensions), variance, std).cpu() + math.log(total)
        sums = [self._log_sums(ctx, block, which, std[:, which], tiles(total, shape)) for block in batches(chosen, size)]
        return check.finite("rows of L_K", last - torch.cat(sums), FIX, numbers=chosen)

    def _log_sums(
        self, ctx: EvalContext, block: Sequence[int], which: Tensor, std: Tensor, parts: Sequence[Sequence[int]]
    ) -> Tensor:
        """`log_kernels` of a block of images and all training images, (B,), by those coefficients that are `which`."""
        model, rows = ctx.trained("elbo"), max(1, PAIRS // max(map(len, parts)))
        states = functools.cache(lambda: self._states(ctx, block, which))

        def work(places: Sequence[int], advance: Callable[[], object]) -> tuple[Tensor, None]:
            draws, x = states()
            u = ctx.data.get("train", parts[places[0]]).to(ctx.devices.device)

            def against(model: Method, x: Tensor) -> Tensor:
                y = torch.cat([coefficients(model, part)[:, which] for part in u.split(ctx.batch_size)]) / std
                output = x.new_empty(len(x))  # at once: small pieces between large ones that are freed would keep their room
                for part, place in zip(x.split(rows), output.split(rows), strict=True):
                    place.copy_(bound.log_kernels(part / std, y))
                return output

            if draws is None:
                sums = against(model, x)
            else:  # the training images go through each image's own draw
                sums = torch.cat([against(model.bind(d[None]), c[None]) for d, c in zip(draws, x, strict=True)])
            advance()
            return sums[None].cpu(), None

        kept = LogSums()
        ctx.reduce(range(len(parts)), work, kept, "L_K", size=1)
        return torch.logsumexp(ctx.devices.gather(kept.rows), dim=0)

    def _states(self, ctx: EvalContext, indices: Sequence[int], which: Tensor) -> tuple[Tensor | None, Tensor]:
        """The draws of the map for these images, None where it is not random, and their coefficients at level K, (B, d)."""
        draws, states = [], torch.empty(len(indices), len(which), dtype=torch.float64, device=ctx.devices.device)
        for batch, rows in zip(batches(indices, ctx.batch_size), states.split(ctx.batch_size), strict=True):
            drawn, model = ctx.trained("elbo").process.draw(self._map_rng(ctx, batch)), self._model(ctx, batch)
            draws += [] if drawn is None else [drawn]
            rows.copy_(coefficients(model, ctx.dequantised(self.split, batch, torch.float32))[:, which])
        return torch.cat(draws) if draws else None, states

    def _result(self, ctx: EvalContext, first: Tensor, middle: Tensor, design: Tensor, last: Tensor) -> Result:
        model, n = ctx.trained("elbo"), len(first)
        num_terms = model.process.num_levels - 1
        means, parts = bound.clustered_sum(middle, design, num_terms)
        first_k = 1 if self.compat else 2
        curves = [
            Series("k", [float(k) for k in range(first_k, first_k + num_terms)]),
            Series("l_k", means.tolist(), "nats", "L_{k-1}"),
            Series("l_k_se", bound.level_errors(middle, design, num_terms).tolist(), "nats", "standard error of L_{k-1}"),
        ]
        facts = {
            "n": n,
            "split": f"{ctx.data_name} {self.split}",
            "training images in the prior": len(ctx.data.images("train")),
            "levels": model.process.num_levels,
            "levels drawn for each image": design.shape[1],
            "delta": model.noise_label(),
            "dimensions": math.prod(ctx.data.spec.shape),
        }
        notes = []
        if not model.has_markov_forward:
            notes.append(
                "q factorises over levels, so the bound grows with K: compare it at equal K, not with DDPM-like models."
            )
        if self.compat:
            notes.append(
                "compat: the original's sum over k = 1 .. K-1 in place of 2 .. K; not a bound, for old numbers only."
            )
        values, notes = self._values(ctx, first, means, parts, last), notes + few_samples(n, "images")
        return Result(values, facts, notes, curves, headline=("nll_bound",), over="images, their noise and levels")

    @staticmethod
    def _add_gap(ctx: EvalContext, first: Tensor, middle: Tensor, design: Tensor, result: Result) -> None:
        """How much lower the bound of the best network is, from the gaps of the terms of each image, (n,) and (n, m)."""
        n, dimensions = len(first), math.prod(ctx.data.spec.shape)
        means, parts = bound.clustered_sum(middle, design, len(result.series["k"]))
        nats = (means.sum() + first.mean()).item()
        error = (parts + (first - first.mean()) / math.sqrt(n * (n - 1))).norm().item()
        unit, label = 1 / (dimensions * math.log(2)), "bound above the best network's"
        result.add(Value("exact_gap_nats", nats, error, "nats", label))
        result.add(Value("exact_gap", nats * unit, error * unit, "bits/dim", label))
        result.curves.append(Series("exact_gap_k", means.tolist(), "nats", "L_{k-1} above the best network's"))

    @staticmethod
    def _values(ctx: EvalContext, first: Tensor, means: Tensor, parts: Tensor, last: Tensor) -> list[Value]:
        """Every term and their sum with standard errors, in nats, then in bits per dimension."""
        n, dimensions = len(first), math.prod(ctx.data.spec.shape)
        nats = {"l_last": last.mean().item(), "l_middle": means.sum().item(), "l_first": first.mean().item()}
        errors = {
            "l_last": last.std().item() / n**0.5,
            "l_middle": parts.norm().item(),
            "l_first": first.std().item() / n**0.5,
        }
        nats["nll_bound"] = sum(nats.values())
        ends = first + last  # of the same images as the parts, so their errors are not independent
        errors["nll_bound"] = (parts + (ends - ends.mean()) / math.sqrt(n * (n - 1))).norm().item()
        unit = 1 / (dimensions * math.log(2))
        bits = {name: value * unit for name, value in nats.items()}
        bits["nll_bound"] += ctx.data.spec.bits or 0
        return [
            *(Value(f"{name}_nats", nats[name], errors[name], "nats", label) for name, label in TERMS.items()),
            *(Value(name, bits[name], errors[name] * unit, "bits/dim", label) for name, label in TERMS.items()),
        ]
