"""mode=physics: what the predictions of a neural process keep of the laws of heat between insulating walls."""

from collections.abc import Sequence

import torch
from torch import Tensor

from heatgen import check
from heatgen.metric.context import EvalContext
from heatgen.metric.neural_process_tasks import FRAMES, Tables, TaskMetric, add, double, ending
from heatgen.metric.pictures import physics as pictures
from heatgen.metric.result import Result, Value
from heatgen.model.tasks import entropy
from heatgen.oracle.trajectory import Trajectory

LAWS = {  # name -> label
    "energy_drift": "energy drift",
    "overshoot": "overshoot",
    "undershoot": "undershoot",
    "violations": "violations",
    "entropy_decrease": "entropy decrease",
}
HEADLINE = ("energy_drift", "overshoot", "violations", "entropy_decrease")
NAMES = {  # whose laws: names and labels of their values
    "mean": ("{}", "{}"),
    "draws": ("{}_draws", "{} of draws"),
    "true": ("true_{}", "true {}"),
    "exact": ("exact_{}", "exact {}"),
}
SHOWN = 3  # tasks in the picture


class Physics(TaskMetric):
    """How far predictions at all levels break the laws of heat, by number of context frames, with standard errors.

    energy drift: the mean over the frame minus that of the first predicted frame, root mean square over tasks and times;
    overshoot and undershoot: how far the largest pixel of a frame is above those of all earlier ones, and the smallest
    below, mean over frames; violations: the share of frames where either is above `tolerance`; entropy decrease: the mean
    of max(0, H_l - H_l+1) over consecutive frames, H of `tasks.entropy`, as a share of its largest value. All are of the
    predictive mean, without noise; of draws: of the mean of each draw of the latent, then the mean over draws; true: of
    the clean frames, about 0 where the map is heat flow; exact: of the exact posterior mean, where the law is known. Tasks
    and contexts are those of mode=likelihood.
    Its other arguments are those of `TaskMetric`.

    Args:
        tolerance: of a violation, on the scale of frames.
    """

    answer = "mean"

    def __init__(
        self,
        split: str = "test",
        contexts: Sequence[int] = (1, 3, 5),
        targets: int = 10,
        draws: int = 64,
        tolerance: float = 0.01,
    ):
        super().__init__(split, contexts, targets, draws)
        self.tolerance = check.number("metric.tolerance", tolerance, minimum=0)

    def tasks_at_a_time(self, ctx: EvalContext) -> int:
        """Few, as every level is predicted."""
        return max(1, FRAMES // len(self.model(ctx).process.times))

    def summaries(
        self, ctx: EvalContext, oracle: Trajectory | None, num_context: int | None, indices: Sequence[int]
    ) -> dict[str, Tensor]:
        """What the laws need of all levels, (draws, B, levels, 4), of mean, draws, true and exact (`NAMES`)."""
        task = self.everything(ctx, num_context, indices)
        mean, draws = [], []
        for prediction in self.predict_all(ctx, task, indices):
            each = prediction.mean.double()
            mean.append(summary(each.mean(0, keepdim=True)))
            draws.append(summary(each))
        found = {"mean": torch.cat(mean, dim=2)}
        if self.model(ctx).net.has_latent:
            found["draws"] = torch.cat(draws, dim=2)
        found["true"] = summary(task.target_clean[None].double())
        if oracle is not None:
            found["exact"] = summary(oracle.mean(double(task.context), task.target.times.double())[None])
        return found

    def columns(
        self, ctx: EvalContext, oracle: Trajectory | None, num_context: int | None, indices: Sequence[int]
    ) -> Tensor:
        """The laws of each of `summaries`, mean over draws, (B, 5 each)."""
        found = self.summaries(ctx, oracle, num_context, indices)
        return torch.cat([laws(x, self.tolerance).mean(0) for x in found.values()], dim=1)

    def report(
        self, ctx: EvalContext, oracle: Trajectory | None, tables: Tables, chosen: Sequence[int], result: Result
    ) -> None:
        """The means over tasks, and a picture of some."""
        middle, process = self.middle(self.model(ctx)), self.model(ctx).process
        shown = self.summaries(ctx, oracle, middle, chosen[:SHOWN])
        names = [(source, law) for source in shown for law in LAWS]
        for num_context, table in tables:
            for (source, law), column in zip(names, table.unbind(1), strict=True):
                name, label = NAMES[source]
                mean = Value.root_mean if law == "energy_drift" else Value.mean
                add(result, num_context, mean(name.format(law), column, label=label.format(LAWS[law])))
        result.headline = tuple(law + ending(middle) for law in HEADLINE)
        result.facts |= {"levels": process.num_levels, "tolerance": self.tolerance}
        result.notes.append(
            "the laws hold for heat between insulating walls; for other maps the numbers of the true frames say what the "
            "data does. Entropy counts pixels below 0 as 0."
        )
        if oracle is not None and process.is_random:
            result.notes.append(
                "the exact mean is over heat flows of several diffusivities: it keeps the energy, but need not keep the "
                "other laws."
            )
        result.pictures["physics"] = pictures.over_time(
            {source: x.mean(0).cpu() for source, x in shown.items() if source != "draws"}, process.times.tolist()
        )


def summary(u: Tensor) -> Tensor:
    """Mean, largest and smallest pixel and entropy of frames (..., C, H, W), (..., 4)."""
    flat = u.flatten(-3)
    return torch.stack([flat.mean(-1), flat.amax(-1), flat.amin(-1), entropy(u)], dim=-1)


def laws(found: Tensor, tolerance: float) -> Tensor:
    """How far each law is broken along the levels (..., L, 4) of `summary`, (..., 5), the energy drift as a mean square."""
    energy, high, low, spread = found.unbind(-1)
    over = (high[..., 1:] - high.cummax(-1).values[..., :-1]).clamp(min=0)
    under = (low.cummin(-1).values[..., :-1] - low[..., 1:]).clamp(min=0)
    columns = [
        (energy[..., 1:] - energy[..., :1]).square(),
        over,
        under,
        (torch.maximum(over, under) > tolerance).to(found),
        (spread[..., :-1] - spread[..., 1:]).clamp(min=0),
    ]
    return torch.stack([column.mean(-1) for column in columns], dim=-1)
