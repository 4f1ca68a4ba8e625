"""mode=likelihood: how probable a neural process finds frames that it has not seen, and how probable they are."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from heatgen.metric.metric import EvalContext, Result
from heatgen.metric.neural_process_tasks import TASKS, TaskMetric, best_gaussians, double, label, moments
from heatgen.metric.pictures import likelihood as pictures
from heatgen.model.objectives import effective_sample_size, marginal
from heatgen.noise import SampleNoise, batches
from heatgen.oracle.trajectory import noise_ceiling

KINDS = ("joint", "frame", "pixel")
EXACT = ("exact joint", "exact frame", "exact factorised", "exact RMSE")


class Likelihood(TaskMetric):
    """ln p(targets | context) a dimension of the targets, for each number of context frames; nats, with standard errors.

    joint: all targets of a task together, ln (1/K) sum_k prod p(y | z_k), with the effective number of draws: where that
    is near 1, more draws would give more; frame: the mean over target frames of the same for each frame alone; pixel: for
    each pixel alone. Without a latent all three are one. RMSE: the root of the pooled squared error of the predictive mean
    against the clean frames. Beside them, where the law is known: the exact joint and frame likelihoods, that of the best
    independent Gaussians (factorised) and the RMSE of the exact mean; gap: exact frame - frame, in nats a frame. The noise
    ceiling is what would be reached if only the noise were unknown. Context frames are never targets. bound: what a model
    with a latent is trained on, on training and held-out fields, with and without the privileged facts of a LUPI model.
    split; contexts: numbers of context frames; targets; draws: K. ConfigError for other models and values out of range.
    Source: the conventions of Foong et al. 2020 (joint) and Nguyen and Grover 2022 (pixel), side by side.
    """

    answer = "likelihood"

    def columns(self, ctx: EvalContext, oracle: Any, number: int | None, run: Sequence[int]) -> Tensor:
        """joint, frame, pixel [nats a dimension], draws that count, squared error; exact ones behind: (B, 5 or 9)."""
        task = self.task(ctx, number, run)
        said, y = self.predict(ctx, task, run), task.target.values
        whole, by_frame, by_pixel = (x.double() for x in (said.joint(y), said.frames(y), said.pixels(y)))
        size, frames = y[0, 0].numel(), y.shape[1]
        columns = [
            marginal(whole) / (frames * size),
            marginal(by_frame).mean(1) / size,
            marginal(by_pixel).flatten(1).mean(1),
            effective_sample_size(whole),
            (said.mean.double().mean(0) - task.target_clean).square().flatten(1).mean(1),
        ]
        if oracle is not None:
            context, target = (double(frames) for frames in (task.context, task.target))
            best = best_gaussians(oracle, context, target.times)
            columns += [
                oracle.joint(context, target) / (frames * size),
                oracle.frames(context, target).mean(1) / size,
                best.pixels(target.values)[0].flatten(1).mean(1),
                (best.mean[0] - task.target_clean).square().flatten(1).mean(1),
            ]
        return torch.stack([column.double() for column in columns], dim=1)

    def report(
        self,
        ctx: EvalContext,
        oracle: Any,
        rows: Sequence[tuple[int | None, Tensor]],
        chosen: Sequence[int],
        result: Result,
    ) -> None:
        """The means over tasks, the gap to the exact answer, and pictures."""
        names = [*KINDS, "effective draws", "RMSE", *(EXACT if oracle is not None else ())]
        model, size = ctx.model, math.prod(ctx.model.process.shape)
        for number, table in rows:
            columns = dict(zip(names, table.unbind(1), strict=True))
            self.tell(result, number, columns, squares=("RMSE", "exact RMSE"))
            if oracle is not None:
                gap, name = (columns["exact frame"] - columns["frame"]) * size, f"gap [nats a frame]{label(number)}"
                result.values[name], result.errors[name] = gap.mean().item(), gap.std().item() / len(gap) ** 0.5
                self._refer(result, number, noise_ceiling(model.noise_std), size)
        result.values |= self._bounds(ctx, chosen)
        first, middle = label(rows[0][0]), label(self.middle(model))
        wanted = [f"frame{first}", f"frame{middle}", f"gap [nats a frame]{middle}", f"RMSE{middle}"]
        result.headline = tuple(name for name in dict.fromkeys(wanted) if name in result.values)
        result.facts |= {
            "noise ceiling": f"{noise_ceiling(model.noise_std):.6g}",
            "min_std": model.net.likelihood.min_std,
        }
        result.notes.append("log-likelihoods are in nats a dimension of the targets, none of which is in the context.")
        result.pictures["likelihoods"] = pictures.likelihoods(result.series, noise_ceiling(model.noise_std))
        result.pictures["frames"] = self._frames(ctx, oracle, chosen[:1])
        result.pictures["film"] = self._film(ctx, oracle, chosen[:1])

    @staticmethod
    def _refer(result: Result, number: int | None, ceiling: float, size: int) -> None:
        """The rows of what is known exactly, for one number of context frames."""
        end, values = label(number), result.values
        exact, error = values[f"exact frame{end}"], {"RMSE": values[f"exact RMSE{end}"]}
        rows = {
            "exact": {"joint": values[f"exact joint{end}"], "frame": exact} | error,
            "exact, independent pixels": dict.fromkeys(KINDS, values[f"exact factorised{end}"]) | error,
            "noise ceiling": dict.fromkeys(KINDS, ceiling),
        }
        for name, row in rows.items():
            known = row | {"gap [nats a frame]": (exact - row["frame"]) * size}
            result.references.setdefault(name, {}).update({f"{key}{end}": value for key, value in known.items()})

    @staticmethod
    def _bounds(ctx: EvalContext, chosen: Sequence[int]) -> dict[str, float]:
        """The objective of a latent model on training and held-out fields, in the regime of training, nats a dimension.

        Its posterior sees the targets; told facts: and the privileged facts too, as in training.
        """
        model, found = ctx.model, {}
        if model.objective not in ("elbo", "iwae"):
            return {}
        ways = {"bound": False} | ({"bound, told facts": True} if model.privileged not in ("none", "oracle") else {})
        for split in ("train", "test"):
            run = [i for i in chosen if i < len(ctx.data.images(split))]
            for name, told in ways.items():
                values = []
                for part in batches(run, TASKS):
                    u0 = ctx.data.get(split, part).to(ctx.devices.device)
                    loss = model.train(told).loss({"u0": u0}, SampleNoise(part, ctx.seed, "bound", split))
                    values.append(loss.double())
                model.eval()
                found[f"{name}, {split}"] = -torch.cat(values).mean().item() if values else math.nan
        return found

    def _frames(self, ctx: EvalContext, oracle: Any, run: Sequence[int]) -> Image.Image:
        """Target, mean and deviation of one task at all its target times, and the exact ones where there are."""
        task = self.task(ctx, self.middle(ctx.model), run)
        mean, std = moments(self.predict(ctx, task, run))
        rows = {"target": task.target.values[0], "clean": task.target_clean[0], "mean": mean[0], "std": std[0]}
        rows |= self._exact(oracle, task)
        order = task.target.times[0].argsort()
        return pictures.frames({name: x[order].cpu() for name, x in rows.items()}, task.target.times[0][order].tolist())

    def _film(self, ctx: EvalContext, oracle: Any, run: Sequence[int]) -> list[Image.Image]:
        """The same of that task at all levels in order of time, a picture each."""
        task = self.everything(ctx, self.middle(ctx.model), run)
        said = [moments(part) for part in self.predict_all(ctx, task, run)]
        mean, std = (torch.cat(parts, dim=1)[0] for parts in zip(*said, strict=True))
        rows = {"target": task.target.values[0], "mean": mean, "std": std, **self._exact(oracle, task)}
        given = task.context.times[0][task.context.mask[0]].tolist()
        return pictures.film({name: x.cpu() for name, x in rows.items()}, task.target.times[0].tolist(), given)

    @staticmethod
    def _exact(oracle: Any, task: Any) -> dict[str, Tensor]:
        """The exact mean and deviation of the first task's targets, (M, C, H, W) each; nothing without an oracle."""
        if oracle is None:
            return {}
        context, times = double(task.context), task.target.times.double()
        best = best_gaussians(oracle, context, times)
        return {"exact mean": best.mean[0, 0], "exact std": best.std[0, 0]}
