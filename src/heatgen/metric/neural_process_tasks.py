"""What the modes of neural processes share: the same tasks for a given seed, a model's predictions, the exact answer."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.frames import Frames
from heatgen.metric.context import EvalContext
from heatgen.metric.result import Result, Series, Value, few_samples
from heatgen.model.np import NeuralProcessMethod
from heatgen.model.prediction import Prediction
from heatgen.model.tasks import Task
from heatgen.noise import SampleNoise, batches
from heatgen.oracle.find import exact_trajectories
from heatgen.oracle.law import law_of
from heatgen.oracle.trajectory import Trajectory
from heatgen.regime.split import Split

TASKS = 16  # at a time, as every draw of the latent is another set of frames
FRAMES = 160  # of all tasks together that are predicted at a time where all levels are
Splitter = Callable[[int, SampleNoise], Split]  # (frames, rng) -> which are context, which are targets
Tables = Sequence[tuple[int | None, Tensor]]  # the number of context frames, and the columns of all tasks with so many


class TaskMetric:
    """A metric of frames given frames, for each number of context frames; a subclass writes `columns` and `report`.

    The tasks depend on the seed, the regime and the noise alone, so all models and all these modes have the same ones.

    Args:
        split: of the fields, train, val or test.
        contexts: numbers of context frames.
        targets: how many target frames.
        draws: K, of the latent.

    Raises:
        ConfigError: for other models, for fewer than two tasks and for values out of range.
    """

    draws_samples = False
    answer = "answer"  # what is missing where there is no oracle

    def __init__(self, split: str = "test", contexts: Sequence[int] = (1, 3, 5), targets: int = 10, draws: int = 64):
        self.split = check.choice("metric.split", split, ("train", "val", "test"))
        self.contexts = check.integers("metric.contexts", contexts, minimum=0)
        if not self.contexts:
            raise ConfigError("metric.contexts must be a list of numbers such as [1,3,5], not [].")
        self.targets = check.integer("metric.targets", targets, minimum=1)
        self.draws = check.integer("metric.draws", draws, minimum=1)

    def columns(
        self, ctx: EvalContext, oracle: Trajectory | None, num_context: int | None, indices: Sequence[int]
    ) -> Tensor:
        """Each column of a few tasks with so many context frames, (B, columns); oracle: None where there is none."""
        raise NotImplementedError

    def report(
        self, ctx: EvalContext, oracle: Trajectory | None, tables: Tables, chosen: Sequence[int], result: Result
    ) -> None:
        """Put the columns of all tasks, for each number of context frames, into the result."""
        raise NotImplementedError

    @torch.no_grad()
    def __call__(self, ctx: EvalContext) -> Result:
        mode, model = check.option_name(self), self.model(ctx)
        chosen = ctx.choose(mode, self.split, "likelihood", "tasks")
        result = Result(headline=(), notes=few_samples(len(chosen), "tasks"), over="tasks")
        there, longest = model.process.num_levels + 1, 1 if model.regime.context is None else max(self.contexts)
        if longest + self.targets > there:
            own = "" if model.regime.context is None else f"metric.contexts={self.contexts} and "
            asked = f"{own}metric.targets={self.targets} ask for up to {longest + self.targets} frames"
            raise ConfigError(f"{asked}, and the run has {there}; use fewer.")
        oracle = self._oracle(ctx, result)
        tables = []
        for num_context in self.num_contexts(model):
            what = mode if num_context is None else f"{mode}, {num_context} context frames"
            tables.append((num_context, ctx.each(chosen, functools.partial(self._batch, ctx, oracle, num_context), what)))
        more = self.besides(ctx, chosen)
        if ctx.devices.first:
            result.facts = {
                "n": len(chosen),
                "split": f"{ctx.data_name} {self.split}",
                "regime": check.option_name(model.regime),
                "target frames": self.targets,
                "draws": self.draws if model.net.has_latent else 1,
                "noise on frames": model.noise_std,
                "dimensions of a frame": math.prod(model.process.shape),
            }
            abscissa = [math.nan if num_context is None else float(num_context) for num_context, _ in tables]
            result.curves = [Series("num_context", abscissa, label="context frames")]
            self.report(ctx, oracle, tables, chosen, result)
            result.add(*more)
        return result

    def besides(self, ctx: EvalContext, chosen: Sequence[int]) -> list[Value]:
        """What else is measured of the tasks, by all processes together; nothing."""
        return []

    def model(self, ctx: EvalContext) -> NeuralProcessMethod:
        """The neural process that is measured. ConfigError for other models."""
        if not isinstance(ctx.model, NeuralProcessMethod):
            raise ConfigError(f"mode={check.option_name(self)} needs a run of a neural process, such as model=np.")
        return ctx.model

    def _batch(self, ctx: EvalContext, oracle: Trajectory | None, num_context: int | None, indices: Sequence[int]) -> Tensor:
        parts = batches(indices, self.tasks_at_a_time(ctx))
        return torch.cat([self.columns(ctx, oracle, num_context, part) for part in parts])

    def tasks_at_a_time(self, ctx: EvalContext) -> int:
        """How many tasks `columns` is given at most."""
        return TASKS

    def num_contexts(self, model: NeuralProcessMethod) -> list[int | None]:
        """The numbers of context frames; [None] for a regime that has its own."""
        return [None] if model.regime.context is None else list(self.contexts)

    def middle(self, model: NeuralProcessMethod) -> int | None:
        """The number of context frames that pictures and the headline are of."""
        num_contexts = self.num_contexts(model)
        return num_contexts[len(num_contexts) // 2]

    def _oracle(self, ctx: EvalContext, result: Result) -> Trajectory | None:
        """The exact prediction; None with a note where there is none."""
        model = self.model(ctx)
        try:
            if model.regime.sensors is not None:
                raise ConfigError("its context is whole frames, and regime.sensors shows a few pixels.")
            law = law_of(ctx.data)
            if law.refusal:
                raise ConfigError(f"{law.refusal}.")
            result.notes += law.notes
            return exact_trajectories(model.process, law.spec, model.noise_std)
        except ConfigError as error:
            result.notes.append(f"no exact {self.answer}: {error}")
            return None

    # tasks --------------------------------------------------------------------------------------------------------------

    def task(self, ctx: EvalContext, num_context: int | None, indices: Sequence[int]) -> Task:
        """The tasks of some fields; the same for every model with this regime and noise."""
        return self._make(ctx, num_context, indices, self.model(ctx).regime.sized(num_context, self.targets))

    def everything(self, ctx: EvalContext, num_context: int | None, indices: Sequence[int]) -> Task:
        """The same tasks with the same context, but the targets are the frames of all levels, in order of time."""
        task, own = self.task(ctx, num_context, indices), self.model(ctx).regime.sized(num_context, self.targets)

        def regime(count: int, rng: SampleNoise) -> Split:
            split = own(count, rng)
            return dataclasses.replace(split, target=torch.arange(count).expand(len(split.context), -1))

        every = self._make(ctx, num_context, indices, regime)
        return dataclasses.replace(every, context=task.context, pixel_mask=task.pixel_mask)

    def _make(self, ctx: EvalContext, num_context: int | None, indices: Sequence[int], regime: Splitter) -> Task:
        u0 = ctx.data.get(self.split, indices).to(ctx.devices.device)
        return self.model(ctx).make_task(u0, regime, SampleNoise(indices, ctx.seed, "likelihood", str(num_context)))

    # predictions --------------------------------------------------------------------------------------------------------

    def predict(self, ctx: EvalContext, task: Task, indices: Sequence[int], times: Tensor | None = None) -> Prediction:
        """The model's prediction at the targets, or at times (B, M); always with the same draws of the latent."""
        rng = SampleNoise(indices, ctx.seed, "likelihood draws")
        with ctx.devices.autocast():
            return self.model(ctx).predict(task, self.draws, rng, times)

    def predict_all(self, ctx: EvalContext, task: Task, indices: Sequence[int]) -> Iterator[Prediction]:
        """Its predictions at all levels in order of time, a few levels after the other, all with the same draws."""
        times = self.model(ctx).process.times.expand(len(indices), -1)
        for part in times.split(max(1, FRAMES // len(indices)), dim=1):
            yield self.predict(ctx, task, indices, part)


def add(result: Result, num_context: int | None, value: Value) -> None:
    """Add a value for so many context frames, which its name and label say; and as a point of its series."""
    if value.name not in result.series:
        result.curves.append(Series(value.name, [], value.unit, value.label))
    result.series[value.name].append(value.value)
    result.add(for_context(value, num_context))


def for_context(value: Value, num_context: int | None) -> Value:
    """The value, named for so many context frames; None: the regime has its own."""
    if num_context is None:
        return value
    label = f"{value.label}, {num_context} context frame{'s' * (num_context != 1)}"
    return dataclasses.replace(value, name=value.name + ending(num_context), label=label)


def ending(num_context: int | None) -> str:
    """What the names of values for so many context frames end in."""
    return "" if num_context is None else f"_context_{num_context}"


def double(frames: Frames) -> Frames:
    """The frames in float64."""
    return Frames(frames.times.double(), frames.values.double(), frames.mask)


def moments(prediction: Prediction) -> tuple[Tensor, Tensor]:
    """Mean and deviation of every pixel over the draws and the noise of each, (B, M, C, H, W) each, float64."""
    mean = prediction.mean.double()
    return mean.mean(0), (prediction.std.double().square().mean(0) + mean.var(0, correction=0)).sqrt()


def best_gaussians(oracle: Trajectory, context: Frames, times: Tensor) -> Prediction:
    """The best independent normal laws of noisy pixels: exact mean and variance, and the noise; one draw, float64."""
    mean, variance = oracle.moments(context, times)
    return Prediction(mean[None], (variance + oracle.noise_std**2).sqrt()[None])
