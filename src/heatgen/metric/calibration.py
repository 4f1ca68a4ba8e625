"""mode=calibration: whether a neural process knows how uncertain it is."""

from collections.abc import Sequence

import torch
from torch import Tensor

from heatgen import check
from heatgen.metric import scoring_rules
from heatgen.metric.context import EvalContext
from heatgen.metric.exact_cache import kept
from heatgen.metric.neural_process_tasks import Tables, TaskMetric, add, best_gaussians, double, ending
from heatgen.metric.pictures import calibration as pictures
from heatgen.metric.result import Result, Value
from heatgen.model.prediction import Prediction
from heatgen.noise import SampleNoise
from heatgen.oracle.trajectory import Trajectory

COVERAGES = (50, 90, 95)
COLUMNS = {  # name -> label
    "crps": "CRPS",
    "energy_score": "energy score",
    **{f"coverage_{level}": f"coverage {level} %" for level in COVERAGES},
}
HEADLINE = ("crps", "energy_score", "ks_distance", "coverage_90")
BINS = 1000  # of the PIT; the distance is the largest over their edges


class Calibration(TaskMetric):
    """How well the predictive law of noisy target frames fits them, by number of context frames, with standard errors.

    CRPS: of each pixel's mixture of K Gaussians, exact; energy score: of whole frames, fair, from one draw of each of the K
    (of `draws` draws where there is no latent), over sqrt(C H W); both on the scale of a pixel, less is better. Of the PIT
    u = (1/K) sum_k Phi((y - mu_k) / s_k) of all pixels: coverage of the central intervals of 50, 90 and 95 %, and the
    Kolmogorov-Smirnov distance to U(0, 1), over 1000 edges. Beside them, where the law is known, the same of the best
    independent Gaussians (exact mean and variance of each pixel). Tasks are those of mode=likelihood.
    Its arguments are those of `TaskMetric`, with at least 2 draws.

    Source:
        Gneiting and Raftery 2007.
    """

    answer = "calibration"

    def __init__(self, split: str = "test", contexts: Sequence[int] = (1, 3, 5), targets: int = 10, draws: int = 64):
        super().__init__(split, contexts, targets, check.integer("metric.draws", draws, minimum=2))

    def columns(
        self, ctx: EvalContext, oracle: Trajectory | None, num_context: int | None, indices: Sequence[int]
    ) -> Tensor:
        """The scores and the histogram of the PIT, of the model and then of the best Gaussians, (B, 1005 or 2010)."""
        task = self.task(ctx, num_context, indices)
        y = task.target.values

        def measured(prediction: Prediction) -> Tensor:
            return self.measure(prediction, y, SampleNoise(indices, ctx.seed, "calibration draws"))

        rows = [measured(self.predict(ctx, task, indices))]
        if oracle is not None:
            asked = ("calibration", self.draws, ctx.seed, list(indices))
            context, times, shown = double(task.context), task.target.times.double(), (task.context, task.target)
            exact = kept(ctx, oracle, asked, shown, lambda: measured(best_gaussians(oracle, context, times)).double())
            rows.append(exact)
        return torch.cat(rows, dim=1)

    def measure(self, prediction: Prediction, y: Tensor, rng: SampleNoise) -> Tensor:
        """CRPS, energy score, coverages and the histogram of the PIT of frames y (B, M, C, H, W), (B, 1005)."""
        transform = scoring_rules.mixture_pit(prediction.mean, prediction.std, y)
        frames = repeated(prediction, self.draws).sample(rng).flatten(1, 2)
        energy = scoring_rules.energy_score(frames, y.flatten(0, 1)).reshape(y.shape[:2]).mean(1)
        covered = [scoring_rules.coverage(transform, level / 100) for level in COVERAGES]
        columns = [scoring_rules.mixture_crps(prediction.mean, prediction.std, y), energy, *covered]
        return torch.cat([torch.stack(columns, dim=1), scoring_rules.histogram(transform, BINS)], dim=1)

    def report(
        self, ctx: EvalContext, oracle: Trajectory | None, tables: Tables, chosen: Sequence[int], result: Result
    ) -> None:
        """The means over tasks, the distances and the two pictures."""
        sources = ("model", "exact") if oracle is not None else ("model",)
        shares: dict[str, list[Tensor]] = {source: [] for source in sources}
        for num_context, table in tables:
            for source, own in zip(sources, table.chunk(len(sources), dim=1), strict=True):
                columns, counts = own[:, : len(COLUMNS)], own[:, len(COLUMNS) :]
                start, word = ("", "") if source == "model" else ("exact_", "exact ")
                for (name, label), column in zip(COLUMNS.items(), columns.unbind(1), strict=True):
                    add(result, num_context, Value.mean(start + name, column, label=word + label))
                distance, error = uniform_distance(counts)
                add(result, num_context, Value(f"{start}ks_distance", distance, error, label=f"{word}KS distance"))
                shares[source].append(counts.mean(0))
        result.headline = tuple(name + ending(self.middle(self.model(ctx))) for name in HEADLINE)
        result.notes.append("of noisy targets, none of which is in the context; a calibrated law has KS distance 0.")
        if oracle is not None:
            result.notes.append(
                "exact: the best independent Gaussians, with the exact mean and variance of each pixel; where the data is "
                "not Gaussian they need not be calibrated either."
            )
        num_contexts = [num_context for num_context, _ in tables]
        result.pictures["pit"] = pictures.pit(num_contexts, shares)
        result.pictures["reliability"] = pictures.reliability(num_contexts, shares)


def repeated(prediction: Prediction, draws: int) -> Prediction:
    """The prediction as it is, or where it has one draw of the latent alone, `draws` times the same."""
    if len(prediction.mean) > 1:
        return prediction
    factor = prediction.factor
    factor = None if factor is None else factor.expand(draws, *[-1] * (factor.dim() - 1))
    mean, own = (x.expand(draws, *[-1] * (x.dim() - 1)) for x in (prediction.mean, prediction.own))
    return Prediction(mean, own, factor)


def uniform_distance(counts: Tensor) -> tuple[float, float]:
    """The KS distance of the PIT of all tasks to U(0, 1), and its standard error over tasks; counts: shares, (B, bins).

    max_j |F(j / bins) - j / bins|, with F the mean over tasks; the error is that of F there.
    """
    below, bins = counts.double().cumsum(1), counts.shape[1]
    gap = (below.mean(0) - torch.arange(1, bins + 1, dtype=torch.float64) / bins).abs()
    place = int(gap.argmax())
    return gap[place].item(), below[:, place].std().item() / len(counts) ** 0.5
