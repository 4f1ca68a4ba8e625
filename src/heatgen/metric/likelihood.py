"""mode=likelihood: how probable a neural process finds frames that it has not seen, and how probable they are."""

import functools
import math
from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from heatgen.data.stream import Batch
from heatgen.metric.context import EvalContext
from heatgen.metric.exact_cache import kept
from heatgen.metric.neural_process_tasks import Tables, TaskMetric, add, best_gaussians, double, ending, for_context, moments
from heatgen.metric.pictures import likelihood as pictures
from heatgen.metric.result import Result, Value
from heatgen.model.objectives import effective_sample_size, marginal
from heatgen.model.tasks import Task
from heatgen.noise import SampleNoise
from heatgen.oracle.trajectory import Trajectory, noise_ceiling

KINDS = ("joint", "frame", "pixel")
EXACT = ("exact_joint", "exact_frame", "exact_factorised", "exact_rmse")
SURPLUS = "noise_surplus"  # the column of what the realised noise of the targets adds to every log-likelihood
PLAIN = {"effective_draws": "effective draws", "rmse": "RMSE", "exact_rmse": "exact RMSE"}  # not in nats: name -> label


class Likelihood(TaskMetric):
    """ln p(targets | context) a dimension of the targets, for each number of context frames; nats, with standard errors.

    joint: all targets of a task together, ln (1/K) sum_k prod p(y | z_k), with the effective number of draws: where that
    is near 1, more draws would give more; frame: the mean over target frames of the same for each frame alone; pixel: for
    each pixel alone. Without a latent all three are one. RMSE: the root of the pooled squared error of the predictive mean
    against the clean frames. Beside them, where the law is known: the exact joint and frame likelihoods, that of the best
    independent Gaussians (factorised) and the RMSE of the exact mean; gap: exact frame - frame, in nats a frame. The noise
    ceiling is what would be reached if only the noise were unknown. Context frames are never targets. bound: what a model
    with a latent is trained on, on training and held-out fields, with and without the privileged facts of a LUPI model.
    noise surplus: ln N(y; clean frame, s^2) of the realised noise minus its mean, the ceiling. It is taken off every
    log-likelihood as a control variate: expectations and differences stay, and the noise is gone from the errors.
    Its arguments are those of `TaskMetric`.

    Source:
        The conventions of Foong et al. 2020 (joint) and Nguyen and Grover 2022 (pixel), side by side.
    """

    answer = "likelihood"

    def columns(
        self, ctx: EvalContext, oracle: Trajectory | None, num_context: int | None, indices: Sequence[int]
    ) -> Tensor:
        """surplus of the noise, joint, frame, pixel [nats a dimension], draws that count, squared error: (B, 6).

        Exact joint, frame, factorised and squared error behind them where they are known, (B, 10).
        """
        task = self.task(ctx, num_context, indices)
        prediction, y = self.predict(ctx, task, indices), task.target.values
        whole, by_frame, by_pixel = (x.double() for x in (prediction.joint(y), prediction.frames(y), prediction.pixels(y)))
        size, frames = y[0, 0].numel(), y.shape[1]
        surplus = noise_surplus(y, task.target_clean, self.model(ctx).noise_std)
        columns = [
            surplus,
            marginal(whole) / (frames * size) - surplus,
            marginal(by_frame).mean(1) / size - surplus,
            marginal(by_pixel).flatten(1).mean(1) - surplus,
            effective_sample_size(whole),
            (prediction.mean.double().mean(0) - task.target_clean).square().flatten(1).mean(1),
        ]
        if oracle is not None:
            asked, shown = ("likelihood", task.target_clean), (task.context, task.target)
            exact = kept(ctx, oracle, asked, shown, functools.partial(exact_columns, oracle, task))
            columns += [column - surplus for column in exact.unbind(1)[:3]] + [exact[:, 3]]
        return torch.stack([column.double() for column in columns], dim=1)

    def report(
        self, ctx: EvalContext, oracle: Trajectory | None, tables: Tables, chosen: Sequence[int], result: Result
    ) -> None:
        """The means over tasks, the gap to the exact answer, and pictures."""
        names = [SURPLUS, *KINDS, "effective_draws", "rmse", *(EXACT if oracle is not None else ())]
        model = self.model(ctx)
        size = math.prod(model.process.shape)
        for num_context, table in tables:
            columns = dict(zip(names, table.unbind(1), strict=True))
            for name in (*names[1:], SURPLUS):
                mean = Value.root_mean if name.endswith("rmse") else Value.mean
                unit = "" if name in PLAIN else "nats/dim"
                add(result, num_context, mean(name, columns[name], unit, PLAIN.get(name, "")))
            if oracle is not None:
                gap = Value.mean("gap", (columns["exact_frame"] - columns["frame"]) * size, "nats/frame")
                result.add(for_context(gap, num_context))
                self._refer(result, num_context, columns, noise_ceiling(model.noise_std), size)
        first, middle = ending(tables[0][0]), ending(self.middle(model))
        wanted = [f"frame{first}", f"frame{middle}", f"gap{middle}", f"rmse{middle}"]
        result.headline = tuple(name for name in dict.fromkeys(wanted) if name in result.values)
        result.facts |= {
            "noise ceiling": f"{noise_ceiling(model.noise_std):.6g}",
            "min_std": model.net.likelihood.min_std,
        }
        result.notes.append(
            "log-likelihoods are in nats a dimension of the targets, none of which is in the context; what the targets' own "
            "noise happens to add (noise surplus, 0 on average) is taken off all of them, the exact ones too."
        )
        result.pictures["likelihoods"] = pictures.likelihoods(result.series, noise_ceiling(model.noise_std))
        result.pictures["frames"] = self._frames(ctx, oracle, chosen[:1])
        result.pictures["film"] = self._film(ctx, oracle, chosen[:1])

    @staticmethod
    def _refer(result: Result, num_context: int | None, columns: Mapping[str, Tensor], ceiling: float, size: int) -> None:
        """The rows of what is known exactly, for one number of context frames."""
        end, exact, best = ending(num_context), columns["exact_frame"], columns["exact_factorised"]
        rmse = Value.root_mean(f"rmse{end}", columns["exact_rmse"])
        joint, frame = Value.mean(f"joint{end}", columns["exact_joint"]), Value.mean(f"frame{end}", exact)
        result.refer("exact", joint, frame, rmse, Value(f"gap{end}", 0.0))
        alone = [Value.mean(f"{kind}{end}", best) for kind in KINDS]
        result.refer("exact, independent pixels", *alone, rmse, Value.mean(f"gap{end}", (exact - best) * size))
        most = [Value(f"{kind}{end}", ceiling) for kind in KINDS]
        result.refer("noise ceiling", *most, Value.mean(f"gap{end}", (exact - ceiling) * size))

    def besides(self, ctx: EvalContext, chosen: Sequence[int]) -> list[Value]:
        """The objective of a latent model on training and held-out fields, in the regime of training, nats a dimension.

        Its posterior sees the targets; bound_privileged: and the privileged facts too, as in training.
        """
        model, found = self.model(ctx), []
        if model.objective not in ("elbo", "iwae"):
            return []
        has_facts = model.privileged not in ("none", "oracle")
        for split in ("train", "test"):
            indices = [i for i in chosen if i < len(ctx.data.images(split))]
            for privileged in (False, True)[: 1 + has_facts]:
                name, label = ("bound_privileged", "bound with facts") if privileged else ("bound", "bound")
                label = f"{label}, {split}"
                work = functools.partial(self._losses, ctx, split, privileged)
                losses = ctx.each(indices, work, label, known=[], size=self.tasks_at_a_time(ctx))
                bound = -losses.mean().item() if len(losses) else math.nan
                found.append(Value(f"{name}_{split}", bound, unit="nats/dim", label=label))
        return found

    def _losses(self, ctx: EvalContext, split: str, privileged: bool, part: Sequence[int]) -> Tensor:
        """The loss of some tasks, as in a training where the posterior is told of the facts, (B, 1)."""
        u0 = ctx.data.get(split, part).to(ctx.devices.device)
        batch: Batch = {"u0": u0, "index": torch.tensor(part), "key": torch.tensor(part), "first": part[0]}
        loss = self.model(ctx).train(privileged).loss(batch, SampleNoise(part, ctx.seed, "bound", split))
        self.model(ctx).eval()
        return loss.double()[:, None]

    def _frames(self, ctx: EvalContext, oracle: Trajectory | None, indices: Sequence[int]) -> Image.Image:
        """Target, mean and deviation of one task at all its target times, and the exact ones where there are."""
        task = self.task(ctx, self.middle(self.model(ctx)), indices)
        mean, std = moments(self.predict(ctx, task, indices))
        rows = {"target": task.target.values[0], "clean": task.target_clean[0], "mean": mean[0], "std": std[0]}
        rows |= self._exact(ctx, oracle, task)
        order = task.target.times[0].argsort()
        return pictures.frames({name: x[order].cpu() for name, x in rows.items()}, task.target.times[0][order].tolist())

    def _film(self, ctx: EvalContext, oracle: Trajectory | None, indices: Sequence[int]) -> list[Image.Image]:
        """The same of that task at all levels in order of time, a picture each."""
        task = self.everything(ctx, self.middle(self.model(ctx)), indices)
        parts = [moments(part) for part in self.predict_all(ctx, task, indices)]
        mean, std = (torch.cat(several, dim=1)[0] for several in zip(*parts, strict=True))
        rows = {"target": task.target.values[0], "mean": mean, "std": std, **self._exact(ctx, oracle, task)}
        context = task.context.times[0][task.context.mask[0]].tolist()
        return pictures.film({name: x.cpu() for name, x in rows.items()}, task.target.times[0].tolist(), context)

    @staticmethod
    def _exact(ctx: EvalContext, oracle: Trajectory | None, task: Task) -> dict[str, Tensor]:
        """The exact mean and deviation of the first task's targets, (M, C, H, W) each; nothing without an oracle."""
        if oracle is None:
            return {}

        def compute() -> Tensor:
            best = best_gaussians(oracle, double(task.context), task.target.times.double())
            return torch.stack([best.mean[0, 0], best.std[0, 0]])

        mean, std = kept(ctx, oracle, ["moments"], (task.context, task.target), compute)
        return {"exact mean": mean, "exact std": std}


def exact_columns(oracle: Trajectory, task: Task) -> Tensor:
    """Exact joint, frame and factorised log-likelihood a dimension, and squared error, of a few tasks, (B, 4)."""
    context, target = (double(frames) for frames in (task.context, task.target))
    best, size = best_gaussians(oracle, context, target.times), target.values[0, 0].numel()
    columns = [
        oracle.joint(context, target) / (target.values.shape[1] * size),
        oracle.frames(context, target).mean(1) / size,
        best.pixels(target.values)[0].flatten(1).mean(1),
        (best.mean[0] - task.target_clean).square().flatten(1).mean(1),
    ]
    return torch.stack(columns, dim=1)


def noise_surplus(y: Tensor, clean: Tensor, noise_std: float) -> Tensor:
    """ln N(y; clean, s^2) a dimension minus its mean, the noise ceiling: (1 - mean of ((y - clean) / s)^2) / 2, (B,)."""
    eps = (y.double() - clean.double()) / noise_std
    return 0.5 * (1 - eps.square().flatten(1).mean(1))
