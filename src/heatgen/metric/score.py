"""mode=score: a learned score against the exact one, and the law of the states on the way back, level by level."""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import Mixture
from heatgen.metric import distances
from heatgen.metric.metric import EvalContext, Result
from heatgen.metric.pictures import score as pictures
from heatgen.noise import SampleNoise, generator
from heatgen.oracle.find import exact_answers
from heatgen.oracle.gaussian import GaussianOracle
from heatgen.oracle.mixture import MixtureOracle

POINTS = 2000  # of a split, that stand for a law that is not known
COEFFICIENTS, WORK = 64, 2**15  # coefficients at most whose laws are compared, and at most so many of them times components
SHOWN = 5  # times in the picture of densities
ROUNDING = 1e-6  # a deviation at t = 0 below so much of that at t_K is none
KNOWN = "data=grf, gaussian_mixture, point and two_points"


class Reference:
    """The law of u_t at each time, by coefficient: the exact one, or that of points of a split seen through the map.

    points: how many those are, 0 for the exact law; kept: the coefficients that are compared, evenly chosen of all.
    """

    def __init__(self, oracle: GaussianOracle | MixtureOracle, points: int = 0, frame: Any = None):
        self.oracle, self.points, self.frame = oracle, points, oracle if frame is None else frame
        self.size = math.prod(oracle.process.shape)
        count = min(self.size, COEFFICIENTS, max(4, WORK // len(oracle.weights)))
        self.kept = torch.linspace(0, self.size - 1, count).round().long().to(oracle.weights.device)

    @classmethod
    def of_points(cls, process: Any, spec: Any, points: Tensor) -> "Reference":
        """The law of points (M, C, H, W), each as likely."""

        def oracle(means: Tensor) -> MixtureOracle:
            weights, stds = torch.full((len(means),), 1 / len(means)), torch.zeros(len(means))
            mixture = Mixture(weights.double(), means.double(), stds.double())
            return MixtureOracle(process, dataclasses.replace(spec, mixture=mixture))

        return cls(oracle(points), len(points), oracle(points[:1]))  # the frame is the map's own, whatever the points

    def coefficients(self, u: Tensor, t: Tensor) -> Tensor:
        """Those coefficients of states at one time, (1,); (B, d) float64."""
        return self.frame.coefficients(u, t)[:, self.kept]

    def law(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """weights (M,), means and stds (M, d) of the coefficients at one time, (1,), on the CPU."""
        means, stds = self.oracle.marginals(t)
        return self.oracle.weights.cpu(), means[:, self.kept].cpu(), stds[:, self.kept].cpu()

    def exact_ks(self, n: int) -> float:
        """The Kolmogorov-Smirnov distance that n exact draws have on average; of two samples where the law is points."""
        return distances.EXACT_KS * math.sqrt(1 / n + (1 / self.points if self.points else 0))


class Score:
    """|L (s - s*)|^2 of a score s against the exact s*, and samples on the way back against the law of u_t.

    At `levels` levels k, the middle ones of as many equal parts of 1 .. K (all levels where K is no more), and at 1 and K:
    score error: E |L(t) (s(u, t) - s*(u, t))|^2 / D with u drawn from the forward process at t_k, that is sigma^2
    |s - s*|^2 a pixel; relative: over E |L s*|^2 / D. Their values are means over the middle
    levels, for all of 1 .. K; the standard errors are over points, each of which visits every level.
    By coefficient of the frame in which the map is diagonal, n states drawn as sample.py does, each at its own time t_k,
    u_0 too, against the exact law there: |mean gap|, deviation, Kolmogorov-Smirnov and Wasserstein-1 distance, the mean
    over at most 64 coefficients and the largest (`distances.compare`). KS is left out (NaN) where a single point carries
    more than 1 % of the law. mean gap at 0 [s.e.]: the largest of |mean - exact| over (deviation of the samples / sqrt n).
    Where no exact law is known there is no score error, and points of the split seen through the map are the law.
    split: train, val or test. ConfigError for values out of range, no model, and a map that is drawn at random.
    """

    def __init__(self, split: str = "test", levels: int = 20):
        self.split = check.choice("metric.split", split, ("train", "val", "test"))
        self.levels = check.integer("metric.levels", levels, minimum=2)

    @torch.no_grad()
    def __call__(self, ctx: EvalContext) -> Result:
        model, data = ctx.model, ctx.data
        if model is None:
            raise ConfigError("mode=score needs a run; give run=DIR.")
        process = model.process
        if process.is_random:
            raise ConfigError(
                f"mode=score needs one law at each level, and forward={process.name} is drawn at random for each sample; "
                "use another map."
            )
        total = len(data.images(self.split))
        n = check.integer("n", total if ctx.n is None else ctx.n, minimum=2)
        levels = self.looked_at(process.num_levels)
        order = torch.randperm(total, generator=generator(ctx.seed, "score"))
        chosen, points = (order[:count].sort().values.tolist() for count in (n, POINTS))
        result = Result({}, headline=())
        oracle = exact_answers(process, data.spec)
        reference = self._reference(ctx, oracle, points, result)
        why = self._no_error(ctx, oracle, levels, chosen)
        if why and reference is None:
            raise ConfigError(f"mode=score has nothing to compare: {why}; {result.notes[0]}.")
        result.facts = {
            "n": n,
            "split": f"{ctx.data_name} {self.split}",
            "levels": f"{len(levels)} of {process.num_levels}, and 0",
            "delta": model.noise_label(),
        }
        result.series = {"t": [process.times[k].item() for k in (0, *levels)]}
        if why:
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

    def _reference(self, ctx: EvalContext, oracle: Any, numbers: Sequence[int], result: Result) -> Reference | None:
        """The law that samples are compared with, and a note on it; None where there is none."""
        process, data = ctx.model.process, ctx.data
        if oracle is None:
            points = data.get(self.split, numbers).to(process.times.device)
            result.notes.append(
                f"no closed form for the law of data={ctx.data_name}: the states on the way back are compared with "
                f"{len(points)} points of its {self.split} split, seen through the map."
            )
            return Reference.of_points(process, data.spec, points)
        try:
            oracle.marginals(process.times[-1:])
        except ConfigError:
            result.notes.append(
                f"forward={process.name} is not diagonal in the basis of the data, so there are no laws by coefficient"
            )
            return None
        return Reference(oracle)

    @staticmethod
    def _no_error(ctx: EvalContext, oracle: Any, levels: Sequence[int], chosen: Sequence[int]) -> str:
        """Why there is no score error, "" where there is one."""
        model, process = ctx.model, ctx.model.process
        silent = [k for k in levels if not process.std(process.times[k : k + 1]).any()]
        if oracle is None:
            return f"the score of data={ctx.data_name} has no closed form ({KNOWN} have one)"
        if not hasattr(model, "score"):
            return f"model={type(model).__module__.rsplit('.', 1)[-1]} gives no score"
        if len(chosen) < 2:
            return "it needs at least 2 points of the split"
        return f"forward={process.name} has no noise at level {silent[0]}" if silent else ""

    # the score ------------------------------------------------------------------------------------------------------

    def _add_errors(self, ctx: EvalContext, oracle: Any, levels: Sequence[int], chosen: list[int], result: Result) -> None:
        """The errors of the score, as values and series, with their picture."""
        model, process, data, devices = ctx.model, ctx.model.process, ctx.data, ctx.devices

        def work(run: Sequence[int], advance: Callable[[], object]) -> Tensor:
            u0, rows = data.get(self.split, run).to(devices.device), []
            for k in levels:
                t = process.times[k].expand(len(u0))
                u = process.perturb(u0, t, SampleNoise(run, ctx.seed, "score", k).normal_like(u0))
                exact, std = oracle.score(u, t).double(), process.std(t)
                with devices.autocast():
                    gap = model.score(u, t).double() - exact
                rows.append(
                    torch.stack([process.scale_coefficients(x, std).square().flatten(1).mean(1) for x in (gap, exact)])
                )
                advance()
            return torch.stack(rows, dim=-1).transpose(0, 1)  # (B, 2, levels)

        squares = ctx._each(chosen, work, "score errors", len(levels))
        if not devices.first:
            return
        errors, exact = squares.mean(0)
        middle = [levels.index(k) for k in self.middle(process.num_levels)]
        relative = errors / exact  # of means: its error is that of the mean of (error - relative * exact) / E exact
        for name, rows, value in (
            ("score error", squares[:, 0], errors),
            ("score error, relative", (squares[:, 0] - relative * squares[:, 1]) / exact, relative),
        ):
            result.values[name] = value[middle].mean().item()
            result.errors[name] = rows[:, middle].mean(1).std().item() / len(rows) ** 0.5
            result.series[name] = [math.nan, *value.tolist()]
        result.headline = ("score error",)
        result.facts["points"] = len(chosen)

        def learned(u: Tensor, t: Tensor) -> Tensor:
            with devices.autocast():
                return torch.cat([model.score(*part) for part in zip(u.split(1024), t.split(1024), strict=True)])

        u0 = data.get(self.split, chosen).to(devices.device)
        result.pictures["score"] = pictures.score(process, oracle, learned, u0, levels, result.series)

    # the way back ---------------------------------------------------------------------------------------------------

    def _states(
        self, ctx: EvalContext, reference: Reference, levels: Sequence[int], n: int
    ) -> tuple[dict[int, Tensor], list[int]]:
        """level -> coefficients of n states, and in one or two dimensions the states themselves behind; levels not seen."""
        model, times = ctx.model, ctx.model.process.times
        seen: set[int] = set()
        plain = reference.size <= 2

        def draw(samples: Sequence[int], advance: Callable[[], object]) -> Tensor:
            found: dict[int, Tensor] = {}

            def see(k: int, u: Tensor) -> None:
                if k in levels:
                    columns = [reference.coefficients(u, times[k : k + 1]), *([u.flatten(1).double()] if plain else [])]
                    found[k] = torch.cat(columns, dim=1).cpu()

            def step(k: int, u: Tensor) -> None:
                see(k, u)
                advance()

            u0, noise = ctx.data.prior_images(samples, ctx.seed), SampleNoise(samples, ctx.seed, "sample")
            with ctx.devices.autocast():
                state = model.initial_state(u0.to(ctx.devices.device), noise)
                see(model.process.num_levels, state)
                see(0, model.generate(state, noise, step))
            seen.update(found)
            return torch.stack([found.get(k, torch.full_like(found[0], math.nan)) for k in levels], dim=1)

        rows = ctx._each(range(n), draw, "sampling", model.process.num_levels)
        return {k: rows[:, i] for i, k in enumerate(levels) if k in seen}, [k for k in levels if k not in seen]

    def _add_laws(
        self, ctx: EvalContext, reference: Reference, levels: Sequence[int], chosen: list[int], n: int, result: Result
    ) -> None:
        """The laws of the states beside those of the forward process, as values and series, with their pictures."""
        process, levels = ctx.model.process, [0, *levels]
        states, unseen = self._states(ctx, reference, levels, n)
        if not ctx.devices.first:
            return
        width = len(reference.kept)
        empty = {name: math.nan for name in distances.SUMMARY}
        found = {
            k: distances.compare(states[k][:, :width], *reference.law(process.times[k : k + 1]))
            for k in levels
            if k in states
        }
        rows = [found[k].summary() if k in found else empty for k in levels]
        result.series |= {name: [row[name] for row in rows] for name in distances.SUMMARY}
        if reference.points:
            result.series["W1, exact draws"] = [
                x * math.sqrt(1 + n / reference.points) for x in result.series["W1, exact draws"]
            ]
        self._add_values(result, found[0], found[levels[-1]].exact_std.max().item(), n)
        result.facts["coefficients"] = f"{width} of {reference.size}"
        result.notes.append(
            f"exact draws have a KS of {reference.exact_ks(n):.3g} on average, and the W1 of the column beside theirs."
        )
        if unseen:
            result.notes.append(f"the way back says nothing of {len(unseen)} levels between K and 0: no laws there.")
        u0 = ctx.data.get(self.split, chosen).to(process.times.device)
        result.pictures["levels"] = pictures.levels(result.series, reference.exact_ks(n))
        result.pictures["densities"] = pictures.densities(reference, u0, states, SHOWN, ctx.seed)

    @staticmethod
    def _add_values(result: Result, end: distances.Distances, last: float, n: int) -> None:
        """The values that stand for the laws of all levels, but for those that are undefined; last: the deviation at K."""
        spread = torch.where(end.std > ROUNDING * last, end.std, torch.nan)
        gap, series = (end.mean - end.exact_mean).abs() / spread * n**0.5, result.series
        values = {
            "KS, largest over levels": max([x for x in series["KS"] if x == x], default=math.nan),
            "W1 at 0": series["W1"][0],
            "mean gap at 0 [s.e.]": max([x for x in gap.tolist() if x == x], default=math.nan),
            "std at 0 / exact": series["std / exact"][0],
        }
        values = {name: value for name, value in values.items() if value == value}
        result.values |= values
        result.headline = result.headline or tuple(list(values)[:2])
