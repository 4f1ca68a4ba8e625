"""What the modes of neural processes share: the same tasks for a given seed, what a model says of them, the exact answer."""

import dataclasses
import functools
import inspect
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.frames import Frames
from heatgen.metric.metric import EvalContext, Result
from heatgen.model.prediction import Prediction
from heatgen.model.tasks import Task
from heatgen.noise import SampleNoise, batches, generator
from heatgen.oracle.find import exact_trajectories
from heatgen.regime.split import Split

TASKS = 16  # at a time, as every draw of the latent is another set of frames
FRAMES = 160  # of all tasks together that are predicted at a time where all levels are


class TaskMetric:
    """A metric of frames given frames, for each number of context frames; a subclass writes `columns` and `report`.

    The tasks depend on the seed, the regime and the noise alone, so all models and all these modes have the same ones.
    split; contexts: numbers of context frames; targets: frames; draws: K, of the latent. ConfigError for other models, for
    fewer than two tasks and for values out of range.
    """

    answer = "answer"  # what is missing where there is no oracle

    def __init__(self, split: str = "test", contexts: Sequence[int] = (1, 3, 5), targets: int = 10, draws: int = 64):
        self.split = check.choice("metric.split", split, ("train", "val", "test"))
        if not isinstance(contexts, (list, tuple)) or not contexts:
            raise ConfigError(f"metric.contexts must be a list of numbers such as [1,3,5], not {contexts!r}.")
        self.contexts = [check.integer("metric.contexts", number, minimum=0) for number in contexts]
        self.targets = check.integer("metric.targets", targets, minimum=1)
        self.draws = check.integer("metric.draws", draws, minimum=1)

    def columns(self, ctx: EvalContext, oracle: Any, number: int | None, run: Sequence[int]) -> Tensor:
        """The numbers of a few tasks with `number` context frames, (B, columns); oracle: None where there is none."""
        raise NotImplementedError

    def report(
        self,
        ctx: EvalContext,
        oracle: Any,
        rows: Sequence[tuple[int | None, Tensor]],
        chosen: Sequence[int],
        result: Result,
    ) -> None:
        """Put the columns of all tasks, for each number of context frames, into the result."""
        raise NotImplementedError

    @torch.no_grad()
    def __call__(self, ctx: EvalContext) -> Result:
        model, mode = ctx.model, type(self).__module__.rsplit(".", 1)[-1]  # a mode and its file have the same name
        if model is None or not hasattr(model, "predict") or not hasattr(model, "regime"):
            raise ConfigError(f"mode={mode} needs a run of a neural process, such as model=np.")
        total = len(ctx.data.images(self.split))
        n = total if ctx.n is None else min(check.integer("n", ctx.n, minimum=2), total)
        if n < 2:
            raise ConfigError(f"mode={mode} needs at least 2 tasks; metric.split={self.split} has {n}; use another.")
        chosen = torch.randperm(total, generator=generator(ctx.seed, "likelihood"))[:n].sort().values.tolist()
        result = Result({}, headline=())
        oracle = self._oracle(ctx, result)
        rows = []
        for number in self.numbers(model):
            what = mode if number is None else f"{mode}, {number} context frames"
            rows.append((number, ctx.each(chosen, functools.partial(self._batch, ctx, oracle, number), what)))
        if ctx.devices.first:
            result.facts = self._facts(ctx, n)
            result.series = {"context frames": [math.nan if number is None else float(number) for number, _ in rows]}
            self.report(ctx, oracle, rows, chosen, result)
        return result

    def _batch(self, ctx: EvalContext, oracle: Any, number: int | None, run: Sequence[int]) -> Tensor:
        parts = batches(run, self.tasks_at_a_time(ctx))
        return torch.cat([self.columns(ctx, oracle, number, part) for part in parts])

    def tasks_at_a_time(self, ctx: EvalContext) -> int:
        """How many tasks `columns` is given at most."""
        return TASKS

    def numbers(self, model: Any) -> list[int | None]:
        """The numbers of context frames; [None] for a regime that has its own."""
        takes = "context" in inspect.signature(model.regime).parameters
        return list(self.contexts) if takes else [None]

    def middle(self, model: Any) -> int | None:
        """The number of context frames that pictures and the headline are of."""
        numbers = self.numbers(model)
        return numbers[len(numbers) // 2]

    def _oracle(self, ctx: EvalContext, result: Result) -> Any:
        """The exact prediction; None with a note where there is none."""
        model = ctx.model
        try:
            if model.regime.func.__name__ == "sensors":
                raise ConfigError("its context is whole frames, and regime=sensors shows a few pixels.")
            return exact_trajectories(model.process, ctx.data.spec, model.noise_std)
        except ConfigError as error:
            result.notes.append(f"no exact {self.answer}: {error}")
            return None

    def _facts(self, ctx: EvalContext, n: int) -> dict[str, Any]:
        model = ctx.model
        return {
            "n": n,
            "split": f"{ctx.data_name} {self.split}",
            "regime": model.regime.func.__name__,
            "target frames": self.targets,
            "draws": self.draws if model.net.path != "deterministic" else 1,
            "noise on frames": model.noise_std,
            "dimensions of a frame": math.prod(model.process.shape),
        }

    # tasks --------------------------------------------------------------------------------------------------------------

    def task(self, ctx: EvalContext, number: int | None, run: Sequence[int]) -> Task:
        """The tasks of some fields; the same for every model with this regime and noise."""
        return self._make(ctx, number, run, self._regime(ctx.model, number))

    def everything(self, ctx: EvalContext, number: int | None, run: Sequence[int]) -> Task:
        """The same tasks with the same context, but the targets are the frames of all levels, in order of time."""
        task, own = self.task(ctx, number, run), self._regime(ctx.model, number)

        def regime(count: int, noise: SampleNoise) -> Split:
            split = own(count, noise)
            return dataclasses.replace(split, target=torch.arange(count).expand(len(split.context), -1))

        every = self._make(ctx, number, run, regime)
        return dataclasses.replace(every, context=task.context, pixel_mask=task.pixel_mask)

    def _regime(self, model: Any, number: int | None) -> Any:
        own = {} if number is None else {"context": [number, number]}
        return functools.partial(model.regime, targets=self.targets, **own)

    def _make(self, ctx: EvalContext, number: int | None, run: Sequence[int], regime: Any) -> Task:
        u0 = ctx.data.get(self.split, run).to(ctx.devices.device)
        return ctx.model.make_task(u0, regime, SampleNoise(run, ctx.seed, "likelihood", str(number)))

    # what is said of them -----------------------------------------------------------------------------------------------

    def predict(self, ctx: EvalContext, task: Task, run: Sequence[int], times: Tensor | None = None) -> Prediction:
        """What the model says at the targets, or at times (B, M); always with the same draws of the latent."""
        noise = SampleNoise(run, ctx.seed, "likelihood draws")
        with ctx.devices.autocast():
            return ctx.model.predict(task, self.draws, noise, times)

    def predict_all(self, ctx: EvalContext, task: Task, run: Sequence[int]) -> Iterator[Prediction]:
        """What it says at all levels in order of time, a few levels after the other, all with the same draws."""
        times = ctx.model.process.times.expand(len(run), -1)
        for part in times.split(max(1, FRAMES // len(run)), dim=1):
            yield self.predict(ctx, task, run, part)

    # numbers ------------------------------------------------------------------------------------------------------------

    @staticmethod
    def tell(result: Result, number: int | None, columns: Mapping[str, Tensor], squares: Sequence[str] = ()) -> None:
        """The mean of each column over tasks, with its standard error, as values and in the series.

        squares: the columns that are mean squares, of which the root is told.
        """
        for name, column in columns.items():
            mean, error = column.mean().item(), column.std().item() / len(column) ** 0.5
            if name in squares:
                mean = math.sqrt(mean)
                error = error / (2 * mean) if mean else 0.0
            point(result, number, name, mean, error)


def point(result: Result, number: int | None, name: str, value: float, error: float) -> None:
    """One value with its standard error, also as a point of the series."""
    result.series.setdefault(name, []).append(value)
    result.values[name + label(number)], result.errors[name + label(number)] = value, error


def label(number: int | None) -> str:
    """What the names of values end in."""
    return "" if number is None else f", {number} context"


def double(frames: Frames) -> Frames:
    """The frames in float64."""
    return Frames(frames.times.double(), frames.values.double(), frames.mask)


def moments(said: Prediction) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every pixel over the draws and what each says, (B, M, C, H, W) each, float64."""
    mean = said.mean.double()
    return mean.mean(0), (said.std.double().square().mean(0) + mean.var(0, correction=0)).sqrt()


def best_gaussians(oracle: Any, context: Frames, times: Tensor) -> Prediction:
    """The best independent normal laws of noisy pixels: exact mean and variance, and the noise; one draw, float64."""
    mean, variance = oracle.moments(context, times)
    return Prediction(mean[None], (variance + oracle.noise_std**2).sqrt()[None])
