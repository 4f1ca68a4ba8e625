"""mode=likelihood: how probable a neural process finds frames that it has not seen, and how probable they are."""

import functools
import inspect
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.frames import Frames
from heatgen.metric import likelihood_pictures as pictures
from heatgen.metric.metric import Result, Subject
from heatgen.model.objectives import effective_sample_size, marginal
from heatgen.noise import SampleNoise, batches, generator
from heatgen.oracle.find import exact_trajectories
from heatgen.oracle.trajectory import noise_ceiling

TASKS = 16  # at a time, as every draw of the latent is another set of frames
KINDS = ("joint", "frame", "pixel")
EXACT = ("exact joint", "exact frame", "exact factorised", "exact RMSE")


class Likelihood:
    """ln p(targets | context) a dimension of the targets, for each number of context frames; nats, with standard errors.

    joint: all targets of a task together, ln (1/K) sum_k prod p(y | z_k), with the effective number of draws: where that
    is near 1, more draws would give more; frame: the mean over target frames of the same for each frame alone; pixel: for
    each pixel alone. Without a latent all three are one. RMSE: the root of the pooled squared error of the predictive mean
    against the clean frames. Beside them, where the law is known: the exact joint and frame likelihoods, that of the best
    independent Gaussians (factorised) and the RMSE of the exact mean; gap: exact frame - frame, in nats a frame. The noise
    ceiling is what would be reached if only the noise were unknown. Context frames are never targets.
    split; contexts: numbers of context frames; targets; draws: K. ConfigError for other models and values out of range.
    Source: the conventions of Foong et al. 2020 (joint) and Nguyen and Grover 2022 (pixel), side by side.
    """

    def __init__(self, split: str = "test", contexts: Sequence[int] = (1, 3, 5), targets: int = 10, draws: int = 64):
        self.split = check.choice("metric.split", split, ("train", "val", "test"))
        if not isinstance(contexts, (list, tuple)) or not contexts:
            raise ConfigError(f"metric.contexts must be a list of numbers such as [1,3,5], not {contexts!r}.")
        self.contexts = [check.integer("metric.contexts", number, minimum=0) for number in contexts]
        self.targets = check.integer("metric.targets", targets, minimum=1)
        self.draws = check.integer("metric.draws", draws, minimum=1)

    @torch.no_grad()
    def __call__(self, subject: Subject) -> Result:
        model = subject.model
        if model is None or not hasattr(model, "predict") or not hasattr(model, "regime"):
            raise ConfigError("mode=likelihood needs a run of a neural process, such as model=np.")
        total = len(subject.data.images(self.split))
        n = total if subject.n is None else min(check.integer("n", subject.n, minimum=2), total)
        if n < 2:
            raise ConfigError(f"mode=likelihood needs at least 2 tasks; metric.split={self.split} has {n}; use another.")
        chosen = torch.randperm(total, generator=generator(subject.seed, "likelihood"))[:n].sort().values.tolist()
        result = Result({}, headline=())
        oracle = self._oracle(subject, result)
        rows = []
        for number in self._numbers(model):
            what = "likelihoods" if number is None else f"likelihoods, {number} context frames"
            work = functools.partial(self._columns, subject, oracle, number)
            rows.append((number, subject.each(chosen, work, what)))
        if subject.devices.first:
            self._report(subject, rows, oracle is not None, n, result)
            result.pictures["frames"] = self._frames(subject, oracle, chosen)
        return result

    def _numbers(self, model: Any) -> list[int | None]:
        """The numbers of context frames; [None] for a regime that has its own."""
        takes = "context" in inspect.signature(model.regime).parameters
        return list(self.contexts) if takes else [None]

    def _oracle(self, subject: Subject, result: Result) -> Any:
        """The exact prediction; None with a note where there is none."""
        model = subject.model
        try:
            if model.regime.func.__name__ == "sensors":
                raise ConfigError("its context is whole frames, and regime=sensors shows a few pixels.")
            return exact_trajectories(model.process, subject.data.spec, model.noise_std)
        except ConfigError as error:
            result.notes.append(f"no exact likelihood: {error}")
            return None

    def task(self, subject: Subject, number: int | None, run: Sequence[int]) -> Any:
        """The tasks of some fields; the same for every model with this regime and noise."""
        model, own = subject.model, {} if number is None else {"context": [number, number]}
        regime = functools.partial(model.regime, targets=self.targets, **own)
        u0 = subject.data.clean(self.split, run).to(subject.devices.device)
        return model.make_task(u0, regime, SampleNoise(run, subject.seed, "likelihood", str(number)))

    # one batch ----------------------------------------------------------------------------------------------------------

    def _columns(self, subject: Subject, oracle: Any, number: int | None, run: Sequence[int]) -> Tensor:
        """joint, frame, pixel [nats a dimension], draws that count, squared error; exact ones behind: (B, 5 or 9)."""
        parts = [self._few(subject, oracle, number, part) for part in batches(run, TASKS)]
        return torch.cat(parts)

    def _few(self, subject: Subject, oracle: Any, number: int | None, run: Sequence[int]) -> Tensor:
        task = self.task(subject, number, run)
        with subject.devices.autocast():
            said = subject.model.predict(task, self.draws, SampleNoise(run, subject.seed, "likelihood draws"))
        y = task.target.values
        whole, by_frame, by_pixel = (x.double() for x in (said.joint(y), said.frames(y), said.pixels(y)))
        size, frames = y[0, 0].numel(), y.shape[1]
        columns = [
            marginal(whole) / (frames * size),
            marginal(by_frame).mean(1) / size,
            marginal(by_pixel).flatten(1).mean(1),
            effective_sample_size(whole),
            (said.mean.double().mean(0) - task.clean).square().flatten(1).mean(1),
        ]
        if oracle is not None:
            context, target = (_double(frames) for frames in (task.context, task.target))
            columns += [
                oracle.joint(context, target) / (frames * size),
                oracle.frames(context, target).mean(1) / size,
                oracle.factorised(context, target).flatten(1).mean(1),
                (oracle.mean(context, target.times) - task.clean).square().flatten(1).mean(1),
            ]
        return torch.stack([column.double() for column in columns], dim=1)

    # all of them ---------------------------------------------------------------------------------------------------------

    def _report(
        self, subject: Subject, rows: Sequence[tuple[int | None, Tensor]], exact: bool, n: int, result: Result
    ) -> None:
        names = [*KINDS, "effective draws", "RMSE", *(EXACT if exact else ())]
        size = math.prod(subject.model.process.shape)
        result.series = {"context frames": [math.nan if number is None else float(number) for number, _ in rows]}
        for number, table in rows:
            label = "" if number is None else f", {number} context"
            for name, column in zip(names, table.unbind(1), strict=True):
                value = column.mean().sqrt() if "RMSE" in name else column.mean()
                result.series.setdefault(name, []).append(value.item())
                result.values[f"{name}{label}"] = value.item()
                spread = column.std() / len(column) ** 0.5
                result.errors[f"{name}{label}"] = (spread / (2 * value) if "RMSE" in name else spread).item()
            if exact:
                gap = (table[:, names.index("exact frame")] - table[:, 1]) * size
                result.values[f"gap [nats a frame]{label}"] = gap.mean().item()
                result.errors[f"gap [nats a frame]{label}"] = gap.std().item() / len(gap) ** 0.5
        middle = "" if rows[0][0] is None else f", {rows[len(rows) // 2][0]} context"
        wanted = [f"frame{middle}", *([f"gap [nats a frame]{middle}"] if exact else []), f"RMSE{middle}"]
        result.headline = tuple(wanted)
        model, net = subject.model, subject.model.net
        result.facts = {
            "n": n,
            "split": f"{subject.data_name} {self.split}",
            "regime": model.regime.func.__name__,
            "target frames": self.targets,
            "draws": self.draws if net.path != "deterministic" else 1,
            "noise on frames": model.noise_std,
            "noise ceiling": f"{noise_ceiling(model.noise_std):.6g}",
            "min_std": net.likelihood.min_std,
            "dimensions of a frame": size,
        }
        result.notes.append("log-likelihoods are in nats a dimension of the targets, none of which is in the context.")
        result.pictures["likelihoods"] = pictures.likelihoods(result.series, noise_ceiling(model.noise_std))

    def _frames(self, subject: Subject, oracle: Any, chosen: Sequence[int]) -> Any:
        """Target, mean and deviation of one task at all its target times, and the exact ones where there are."""
        number = self._numbers(subject.model)[len(self._numbers(subject.model)) // 2]
        task = self.task(subject, number, chosen[:1])
        said = subject.model.predict(task, self.draws, SampleNoise(chosen[:1], subject.seed, "likelihood draws"))
        mean = said.mean.double().mean(0)[0]
        std = (said.std.double().square().mean(0) + said.mean.double().var(0, correction=0)).sqrt()[0]
        rows = {"target": task.target.values[0], "clean": task.clean[0], "mean": mean, "std": std}
        if oracle is not None:
            context, times = _double(task.context), task.target.times.double()
            rows["exact mean"] = oracle.mean(context, times)[0]
            rows["exact std"] = (oracle.variance(context, times)[0] + subject.model.noise_std**2).sqrt()
        order = task.target.times[0].argsort()
        return pictures.frames({name: x[order].cpu() for name, x in rows.items()}, task.target.times[0][order].tolist())


def _double(frames: Frames) -> Frames:
    """The frames in float64."""
    return Frames(frames.times.double(), frames.values.double(), frames.mask)
