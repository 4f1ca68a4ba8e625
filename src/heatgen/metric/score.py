"""mode=score: a learned score against the exact one, and the law of the states on the way back, level by level."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.metric import distances
from heatgen.metric.context import EvalContext
from heatgen.metric.pictures import score as pictures
from heatgen.metric.reference import Reference
from heatgen.metric.result import Result, Series, Value, few_samples
from heatgen.model.prior import start
from heatgen.noise import SampleNoise
from heatgen.oracle.find import Oracle, exact_answers
from heatgen.oracle.gaussian import GaussianOracle
from heatgen.oracle.law import law_of
from heatgen.sampler.interface import ScoreModel

POINTS = 2000  # of a split, that stand for a law that is not known
ROUNDING = 1e-6  # a deviation at t = 0 below so much of that at t_K is none
KNOWN = "data=grf, gaussian_mixture, point and two_points"


class Score:
    """|L (s - s*)|^2 of a score s against the exact s*, and samples on the way back against the law of u_t.

    At `levels` levels k, the middle ones of as many equal parts of 1 .. K (all levels where K is no more), and at 1 and K,
    of the times that the sampler visits (`sampler.steps`):
    score error: E |L(t) (s(u, t) - s*(u, t))|^2 / D with u drawn from the forward process at t_k, that is sigma^2
    |s - s*|^2 a pixel; relative: over E |L s*|^2 / D. Their values are means over the middle
    levels, for all of 1 .. K; the standard errors are over points, each of which visits every level.
    By coefficient of the basis in which the map is diagonal, n states drawn as sample.py does, each at its own time t_k,
    u_0 too, against the exact law there: |mean gap|, deviation, Kolmogorov-Smirnov and Wasserstein-1 distance, the mean
    over at most 64 coefficients and the largest (`distances.compare`). KS is left out (NaN) where a single point carries
    more than 1 % of the law. mean gap at 0 [s.e.]: the largest of |mean - exact| over (deviation of the samples / sqrt n).
    Where no exact law is known there is no score error, and points of the split seen through the map are the law.

    Args:
        split: of the points, train, val or test.
        levels: how many stand for all of 1 .. K.

    Raises:
        ConfigError: for values out of range, without a model, and for a map that is drawn at random.
    """

    def __init__(self, split: str = "test", levels: int = 20):
        self.split = check.choice("metric.split", split, ("train", "val", "test"))
        self.levels = check.integer("metric.levels", levels, minimum=2)

    @torch.no_grad()
    def __call__(self, ctx: EvalContext) -> Result:
        model, data = ctx.trained("score"), ctx.data
        process, times = model.process, model.sampling_times()
        if process.is_random:
            raise ConfigError(
                f"mode=score needs one law at each level, and forward={process.name} is drawn at random for each sample; "
                "use another map."
            )
        total = len(data.images(self.split))
        n = check.integer("n", total if ctx.n is None else ctx.n, minimum=2)
        levels = self.looked_at(model.num_steps)
        order = SampleNoise([0], ctx.seed, "score").permutation(total)[0]
        chosen, points = (order[:count].sort().values.tolist() for count in (n, POINTS))
        result = Result(headline=(), notes=few_samples(n, "states"), over="points")
        law = law_of(data)
        result.notes += law.notes
        oracle = exact_answers(process, law.spec)
        reference = self._reference(ctx, oracle, points, result)
        why = self._no_error(ctx, oracle, levels, chosen)
        if oracle is None and law.refusal:
            why = "there is no exact one"
        if why and reference is None:
            raise ConfigError(f"mode=score has nothing to compare: {why}; {result.notes[-1]}.")
        result.facts = {
            "n": n,
            "split": f"{ctx.data_name} {self.split}",
            "levels": f"{len(levels)} of {model.num_steps}, and 0",
            "delta": model.noise_label(),
        }
        result.curves = [Series("t", [times[k].item() for k in (0, *levels)])]
        if why or oracle is None:
            result.notes.append(f"no score error: {why}.")
        else:
            self._add_errors(ctx, oracle, levels, chosen, result)
        if reference is not None:
            self._add_laws(ctx, reference, levels, chosen, n, result)
        return result

    def looked_at(self, count: int) -> list[int]:
        """The numbers of the levels that are looked at, ascending; of 1 .. count."""
        return sorted({1, *self.middle(count), count})

    def middle(self, count: int) -> list[int]:
        """The numbers of the levels that stand for all of 1 .. count: the middle ones of equal parts."""
        parts = min(self.levels, count)
        return [int((i + 0.5) * count / parts) + 1 for i in range(parts)]

    def _reference(
        self, ctx: EvalContext, oracle: Oracle | None, indices: Sequence[int], result: Result
    ) -> Reference | None:
        """The law that samples are compared with, and a note on it; None where there is none."""
        process, data = ctx.trained("score").process, ctx.data
        if oracle is None:
            points = data.get(self.split, indices).to(process.times.device)
            result.notes.append(
                f"no closed form for the law of data={ctx.data_name}: the states on the way back are compared with "
                f"{len(points)} points of its {self.split} split, seen through the map."
            )
            return Reference.of_points(process, data.spec, points)
        if isinstance(oracle, GaussianOracle) and not oracle.diagonal:
            result.notes.append(
                f"forward={process.name} is not diagonal in the basis of the data, so there are no laws by coefficient"
            )
            return None
        return Reference(oracle)

    @staticmethod
    def _no_error(ctx: EvalContext, oracle: Oracle | None, levels: Sequence[int], chosen: Sequence[int]) -> str:
        """Why there is no score error, "" where there is one."""
        model, process = ctx.trained("score"), ctx.trained("score").process
        silent = [k for k in levels if not process.std(model.sampling_times()[k : k + 1]).any()]
        if oracle is None:
            return f"the score of data={ctx.data_name} has no closed form ({KNOWN} have one)"
        if not isinstance(model, ScoreModel):
            return f"model={check.option_name(model)} gives no score"
        if len(chosen) < 2:
            return "it needs at least 2 points of the split"
        return f"forward={process.name} has no noise at level {silent[0]}" if silent else ""

    # the score ------------------------------------------------------------------------------------------------------

    def _add_errors(
        self, ctx: EvalContext, oracle: Oracle, levels: Sequence[int], chosen: list[int], result: Result
    ) -> None:
        """The errors of the score, as values and series, with their picture."""
        model, data, devices = ctx.trained("score"), ctx.data, ctx.devices
        assert isinstance(model, ScoreModel)
        process, times = model.process, model.sampling_times()

        def work(indices: Sequence[int], advance: Callable[[], object]) -> Tensor:
            u0, rows = data.get(self.split, indices).to(devices.device), []
            for k in levels:
                t = times[k].expand(len(u0))
                u = process.perturb(u0, t, SampleNoise(indices, ctx.seed, "score", k).normal_like(u0))
                exact, std = oracle.score(u, t).double(), process.std(t)
                with devices.autocast():
                    gap = model.score(u, t).double() - exact
                rows.append(
                    torch.stack([process.scale_coefficients(x, std).square().flatten(1).mean(1) for x in (gap, exact)])
                )
                advance()
            return torch.stack(rows, dim=-1).transpose(0, 1)  # (B, 2, levels)

        squares = ctx.advancing(chosen, work, "score errors", len(levels))
        check.finite("score errors", squares, model.divergence(), numbers=chosen)
        if not devices.first:
            return
        errors, exact = squares.mean(0)
        middle = [levels.index(k) for k in self.middle(model.num_steps)]
        relative = errors / exact  # of means: its error is that of the mean of (error - relative * exact) / E exact

        def add(name: str, label: str, by_level: Tensor, rows: Tensor) -> None:
            error = rows[:, middle].mean(1).std().item() / len(rows) ** 0.5
            result.add(Value(name, by_level[middle].mean().item(), error, label=label))
            result.curves.append(Series(name, [math.nan, *by_level.tolist()], label=label))

        add("score_error", "score error", errors, squares[:, 0])
        add("score_error_relative", "score error, relative", relative, (squares[:, 0] - relative * squares[:, 1]) / exact)
        result.headline = ("score_error",)
        result.facts["points"] = len(chosen)

        def learned(u: Tensor, t: Tensor) -> Tensor:
            with devices.autocast():
                return torch.cat([model.score(*part) for part in zip(u.split(1024), t.split(1024), strict=True)])

        u0 = data.get(self.split, chosen).to(devices.device)
        result.pictures["score"] = pictures.score(process, oracle, learned, u0, {k: times[k] for k in levels}, result.series)

    # the way back ---------------------------------------------------------------------------------------------------

    def _states(
        self, ctx: EvalContext, reference: Reference, levels: Sequence[int], n: int
    ) -> tuple[dict[int, Tensor], list[int]]:
        """level -> coefficients of n states, and in one or two dimensions the states themselves behind; levels not seen."""
        model, times = ctx.trained("score"), ctx.trained("score").sampling_times()
        recorded: set[int] = set()
        plain = reference.size <= 2

        def draw(indices: Sequence[int], advance: Callable[[], object]) -> Tensor:
            found: dict[int, Tensor] = {}

            def record(k: int, u: Tensor) -> None:
                if k in levels:
                    columns = [reference.coefficients(u, times[k : k + 1]), *([u.flatten(1).double()] if plain else [])]
                    found[k] = torch.cat(columns, dim=1).cpu()

            def step(k: int, u: Tensor) -> None:
                record(k, u)
                advance()

            begin = start(model, ctx.data, indices, ctx.seed, ctx.devices.device)
            with ctx.devices.autocast():
                record(model.num_steps, begin.state)
                record(0, begin.model.generate(begin.state, begin.rng, step))
            recorded.update(found)
            return torch.stack([found.get(k, torch.full_like(found[0], math.nan)) for k in levels], dim=1)

        rows = ctx.advancing(range(n), draw, "sampling", model.num_steps)
        if not recorded:  # all batches were done by a process that died
            draw([0], lambda: None)
        check.finite("samples", rows[:, [i for i, k in enumerate(levels) if k in recorded]], model.divergence())
        return {k: rows[:, i] for i, k in enumerate(levels) if k in recorded}, [k for k in levels if k not in recorded]

    def _add_laws(
        self, ctx: EvalContext, reference: Reference, levels: Sequence[int], chosen: list[int], n: int, result: Result
    ) -> None:
        """The laws of the states beside those of the forward process, as values and series, with their pictures."""
        times, levels = ctx.trained("score").sampling_times(), [0, *levels]
        states, unseen = self._states(ctx, reference, levels, n)
        if not ctx.devices.first:
            return
        width = len(reference.kept)
        found = {k: distances.compare(states[k][:, :width], *reference.law(times[k : k + 1])) for k in levels if k in states}
        rows = [found[k].summary() if k in found else dict.fromkeys(distances.SUMMARY, math.nan) for k in levels]
        if reference.points:
            for row in rows:
                row["w1_exact_draws"] *= math.sqrt(1 + n / reference.points)
        labels = distances.SUMMARY.items()
        result.curves += [Series(name, [row[name] for row in rows], label=label) for name, label in labels]
        self._add_values(result, found[0], found[levels[-1]].exact_std.max().item(), n)
        result.facts["coefficients"] = f"{width} of {reference.size}"
        result.notes.append(
            f"exact draws have a KS of {reference.exact_ks(n):.3g} on average (by formula), and the W1 of the column beside "
            "theirs."
        )
        if unseen:
            result.notes.append(f"the way back says nothing of {len(unseen)} levels between K and 0: no laws there.")
        u0 = ctx.data.get(self.split, chosen).to(times.device)
        result.pictures["levels"] = pictures.levels(result.series, reference.exact_ks(n))
        result.pictures["densities"] = pictures.densities(reference, u0, states, times, ctx.seed)

    @staticmethod
    def _add_values(result: Result, end: distances.Distances, last: float, n: int) -> None:
        """The values that stand for the laws of all levels, but for those that are undefined; last: the deviation at K."""
        spread = torch.where(end.std > ROUNDING * last, end.std, torch.nan)
        gap, series = (end.mean - end.exact_mean).abs() / spread * n**0.5, result.series
        worst = max([x for x in series["ks"] if x == x], default=math.nan)
        apart = max([x for x in gap.tolist() if x == x], default=math.nan)
        values = [
            Value("ks_over_levels", worst, label="KS, largest over levels"),
            Value("w1_at_0", series["w1"][0], label="W1 at 0"),
            Value("mean_gap_at_0", apart, unit="s.e.", label="mean gap at 0"),
            Value("std_over_exact_at_0", series["std_over_exact"][0], label="std at 0 / exact"),
        ]
        values = [value for value in values if value.value == value.value]
        result.add(*values)
        result.headline = result.headline or tuple(value.name for value in values[:2])
