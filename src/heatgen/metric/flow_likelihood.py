"""mode=flow_likelihood: the log-likelihood of a model with a score, by the change of variables along its probability flow.

    log p(u) = log p_T(u_T) + int_{t_0}^T div (du/dt) dt,   u_{t_0} = u,   du/dt = f - 1/2 G^2 score

Source: Song et al. 2021, section 4.3 and appendix D.2; `flow.py` has the equations.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import torch
from PIL import Image
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.process import ForwardProcess
from heatgen.metric.context import EvalContext
from heatgen.metric.flow import diffusion_squared, flow_field, integrate, kernel_density
from heatgen.metric.pictures.figure import as_image, plots, size, styled
from heatgen.metric.result import Result, Value, few_samples
from heatgen.metric.trivial import compare_with_trivial
from heatgen.noise import SampleNoise, batches
from heatgen.oracle.find import Oracle, exact_answers
from heatgen.oracle.law import law_of
from heatgen.sampler.interface import ScoreModel

DIVERGENCES = ("auto", "exact", "hutchinson")
EXACT_UP_TO = 16  # dimensions that divergence=auto takes one by one
SHORT = 1e-6  # of t_K, by which the way ends earlier where A(t_K) = 0 and the flow has no value there
BLOCK = 2048  # training images at a time in the prior


@runtime_checkable
class KnownLaw(Protocol):
    """A model that has the law of u_t in closed form, as model=oracle has."""

    @property
    def exactly(self) -> Oracle: ...


class FlowLikelihood:
    """log p of held-out data in nats, with its two terms, and beside it the exact one where the law of the data is known.

    The prior p_T is that of `generate`, (1/N) sum_i N(A(T) u_0^i + b(T), initial_std^2) over training data, or with
    model=oracle the exact law at T. Bytes are dequantised, u_0 = (255 x + U) / 256: bits per dimension are
    -log p / (D ln 2) + 8; beside them what trivial coders need (`trivial`), above which they are vacuous.

    Args:
        split: of the data, train, val or test.
        divergence: exact, C H W directional derivatives of the score a step; hutchinson, the mean of v^T J v over random
            v of +1 and -1, drawn once for each sample; auto: exact up to 16 dimensions.
        probes: how many v.
        tolerance: of the adaptive ODE solver, relative and absolute.
        start: t_0 in units of t_1, the time of the first level; the default leaves the noise at t_0 at a hundredth of level
            1's where its variance grows like t.

    Raises:
        ConfigError: for what has no score, no gain or no noise, and for maps drawn at random.
    """

    draws_samples = False

    def __init__(
        self,
        split: str = "test",
        divergence: str = "auto",
        probes: int = 1,
        tolerance: float = 1e-6,
        start: float = 1e-4,
    ):
        self.split = check.choice("metric.split", split, ("train", "val", "test"))
        self.divergence = check.choice("metric.divergence", divergence, DIVERGENCES)
        self.probes = check.integer("metric.probes", probes, minimum=1)
        self.tolerance = check.number("metric.tolerance", tolerance, above=0, maximum=0.1)
        self.start = check.number("metric.start", start, above=0, maximum=1)

    def __call__(self, ctx: EvalContext) -> Result:
        self._check(ctx)
        chosen = ctx.choose("flow_likelihood", self.split, "elbo", "samples")  # those of mode=elbo
        rows = ctx.each(chosen, lambda batch: self._rows(ctx, batch), "probability flow", known=(0, 1, 3))
        result = self._result(ctx, rows)
        if "nll" in result.values:
            compare_with_trivial(result, "nll", ctx.data, self.split, chosen)
        return result

    @staticmethod
    def _check(ctx: EvalContext) -> None:
        model = ctx.model
        if model is None:
            raise ConfigError("mode=flow_likelihood needs a run, of a model with a score such as model=diffusion.")
        if not isinstance(model, ScoreModel):
            name = check.option_name(model)
            raise ConfigError(
                f"mode=flow_likelihood needs a score, which model={name} lacks; use model=diffusion, ssm or smdp."
            )
        process = model.process
        refusal = f"mode=flow_likelihood cannot follow forward={process.name}"
        if process.is_random:
            raise ConfigError(f"{refusal}, which is drawn at random; use a map that is not, such as forward=heat.")
        if not process.is_diagonal:
            raise ConfigError(
                f"{refusal}, which is a matrix known at its levels alone; use a map with a gain, such as heat."
            )
        gains = process.gain(process.times[1:])
        if (gains < 0).any() or not (gains[:-1].isfinite().all() and process.rate(process.times[1:-1]).isfinite().all()):
            raise ConfigError(f"{refusal}, whose A(t) passes through 0 on the way; use a map that ends there.")
        if not (process.std(process.times[1:]) > 0).all() or not (model.initial_std() > 0).all():
            raise ConfigError(
                "mode=flow_likelihood needs noise at every level, where a score is defined; raise forward.sigma (or "
                "forward.g, or prior_std)."
            )

    def _span(self, process: ForwardProcess) -> tuple[float, float]:
        """t_0 and T."""
        last = process.times[-1:]
        defined = process.rate(last).isfinite().all() and diffusion_squared(process, last).isfinite().all()
        return self.start * process.times[1].item(), last.item() * (1.0 if defined else 1 - SHORT)

    def _exactly(self, process: ForwardProcess) -> bool:
        return self.divergence == "exact" or (self.divergence == "auto" and math.prod(process.shape) <= EXACT_UP_TO)

    def _rows(self, ctx: EvalContext, indices: Sequence[int]) -> Tensor:
        """log p_T(u_T), the integral, the exact log p_{t_0} (NaN where unknown) and the evaluations, (B, 4) float64."""
        model, u = ctx.trained("flow_likelihood"), ctx.dequantised(self.split, indices, torch.float64)
        rng = SampleNoise(indices, ctx.seed, "hutchinson")
        probes = torch.stack([1 - 2 * (rng.uniform_like(u) < 0.5).double() for _ in range(self.probes)])
        start, end = self._span(model.process)
        assert isinstance(model, ScoreModel)
        with torch.no_grad():
            scale = min(1.0, model.initial_std().min().item())
            field = flow_field(model, model.process, None if self._exactly(model.process) else probes)
            state, integral, evaluations = integrate(field, u, start, end, self.tolerance, scale)
            prior = self._prior(ctx, state, end)
            exact = self._exact(ctx, u, start)
        return torch.stack([prior, integral, exact, torch.full_like(prior, evaluations)], dim=1)

    @staticmethod
    def _prior(ctx: EvalContext, state: Tensor, end: float) -> Tensor:
        """log p_T, (B,): exact with model=oracle, else in blocks of training data, joined by their log-sum-exp."""
        model, time = ctx.trained("flow_likelihood"), torch.full((1,), end, dtype=torch.float64, device=state.device)
        if isinstance(model, KnownLaw):
            return model.exactly.log_prob(state, time.expand(len(state)))
        process, total, parts = model.process, len(ctx.data.images("train")), []
        states = process.basis(state).flatten(1)
        for block in batches(range(total), BLOCK):
            u0 = ctx.data.get("train", block).to(state)
            centres = process.basis(process.mean(u0, time.expand(len(u0)))).flatten(1)
            parts.append(kernel_density(states, centres, model.initial_std().expand(1, *process.shape).flatten(1)))
        return torch.logsumexp(torch.stack(parts), dim=0) - math.log(total)

    @staticmethod
    def _exact(ctx: EvalContext, u: Tensor, start: float) -> Tensor:
        """log p_{t_0} of the data's own law, (B,); NaN where it is not known."""
        try:
            answers = exact_answers(ctx.trained("flow_likelihood").process, law_of(ctx.data).spec)
        except ConfigError:  # too large for this map
            answers = None
        if answers is None:
            return torch.full((len(u),), math.nan, dtype=torch.float64, device=u.device)
        return answers.log_prob(u, torch.full((len(u),), start, dtype=torch.float64, device=u.device))

    def _result(self, ctx: EvalContext, rows: Tensor) -> Result:
        prior, integral, exact, evaluations = rows.unbind(1)
        found, dimensions = prior + integral, math.prod(ctx.data.spec.shape)
        values = [
            Value.mean("log_likelihood", found, "nats", "log-likelihood"),
            Value.mean("log_likelihood_per_dim", found / dimensions, "nats/dim", "log-likelihood"),
            Value.mean("log_prior", prior, "nats", "log p_T"),
            Value.mean("divergence_integral", integral, "nats", "integral of the divergence"),
        ]
        if ctx.data.spec.bits is not None:
            nll = Value.mean("nll", -found / (dimensions * math.log(2)), "bits/dim", "negative log-likelihood")
            values.insert(0, dataclasses.replace(nll, value=nll.value + ctx.data.spec.bits))
        known = not exact.isnan().any()
        if known:
            values += [
                Value.mean("exact_log_likelihood", exact, "nats", "exact log-likelihood"),
                Value.mean("log_likelihood_gap", (found - exact).abs(), "nats", "mean |gap| to the exact one"),
            ]
        process, exactly = ctx.trained("flow_likelihood").process, self._exactly(ctx.trained("flow_likelihood").process)
        start, end = self._span(process)
        oracle, trained = isinstance(ctx.model, KnownLaw), len(ctx.data.images("train"))
        time = torch.full((1,), start, dtype=torch.float64, device=process.times.device)
        facts = {
            "n": len(found),
            "split": f"{ctx.data_name} {self.split}",
            "dimensions": math.prod(process.shape),
            "divergence": "exact" if exactly else f"Hutchinson, {self.probes} probe{'s' * (self.probes > 1)} a sample",
            "prior": "the exact law at T" if oracle else f"{trained} training samples, seen through the noise at level K",
            "from t_0": f"{start:.6g}",
            "to T": f"{end:.6g}",
            "noise at t_0": f"{process.std(time).max().item():.3g}",
            "tolerance": self.tolerance,
            "evaluations of the field, at most": int(evaluations.max()),
        }
        return Result(
            values,
            facts,
            self._notes(ctx) + few_samples(len(found), "samples"),
            pictures={"likelihoods": histogram(found, exact if known else None)},
            over="samples" if exactly else "samples and their probes",
        )

    def _notes(self, ctx: EvalContext) -> list[str]:
        model = ctx.trained("flow_likelihood")
        notes = [
            "the density is p_{t_0}, that of data seen through the noise at t_0, by an ODE solver to the tolerance above; "
            "metric.start and metric.tolerance say how near."
        ]
        if not self._exactly(model.process):
            notes.append(
                "the divergence is estimated: unbiased, and its spread is part of the standard errors; more metric.probes, "
                "or metric.divergence=exact, for less."
            )
        if model.trainable:
            notes.append(
                "this is the likelihood of the flow: with a learned score, samples of the SDE have another density."
            )
        return notes + law_of(ctx.data).notes


@styled()
def histogram(found: Tensor, exact: Tensor | None) -> Image.Image:
    """How the log-likelihoods of samples spread, (n,) each, with the exact ones beside them; a picture."""
    figure, panel = plots().subplots(figsize=size(1, 2.3), layout="constrained")
    together = found if exact is None else torch.cat([found, exact])
    low, high = together.min().item(), together.max().item()
    options = {"bins": 30, "range": (low, high) if high > low else (low - 1, low + 1)}
    panel.hist(found.tolist(), alpha=0.6, label="probability flow", **options)
    if exact is not None:
        panel.hist(exact.tolist(), histtype="step", color="k", label="exact", **options)
    panel.set(xlabel="log-likelihood of a sample [nats]", ylabel="samples", title="log-likelihoods")
    panel.legend()
    return as_image(figure)
