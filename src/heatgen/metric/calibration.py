"""mode=calibration: whether a neural process knows how uncertain it is."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from heatgen import check
from heatgen.metric import scoring_rules
from heatgen.metric.metric import EvalContext, Result
from heatgen.metric.neural_process_tasks import TaskMetric, best_gaussians, double, label, point
from heatgen.metric.pictures import calibration as pictures
from heatgen.model.prediction import Prediction
from heatgen.noise import SampleNoise

COVERAGES = (50, 90, 95)
NAMES = ("CRPS", "energy score", *(f"coverage {level} %" for level in COVERAGES))
DISTANCE = "KS distance"
BINS = 1000  # of the PIT; the distance is the largest over their edges


class Calibration(TaskMetric):
    """How well the predictive law of noisy target frames fits them, by number of context frames, with standard errors.

    CRPS: of each pixel's mixture of K Gaussians, exact; energy score: of whole frames, fair, from one draw of each of the K
    (of `draws` draws where there is no latent), over sqrt(C H W); both on the scale of a pixel, less is better. Of the PIT
    u = (1/K) sum_k Phi((y - mu_k) / s_k) of all pixels: coverage of the central intervals of 50, 90 and 95 %, and the
    Kolmogorov-Smirnov distance to U(0, 1), over 1000 edges. Beside them, where the law is known, the same of the best
    independent Gaussians (exact mean and variance of each pixel). Tasks are those of mode=likelihood.
    split; contexts: numbers of context frames; targets; draws: K >= 2. ConfigError for other models and values out of range.
    Source: Gneiting and Raftery 2007.
    """

    answer = "calibration"

    def __init__(self, split: str = "test", contexts: Sequence[int] = (1, 3, 5), targets: int = 10, draws: int = 64):
        super().__init__(split, contexts, targets, check.integer("metric.draws", draws, minimum=2))

    def columns(self, ctx: EvalContext, oracle: Any, number: int | None, run: Sequence[int]) -> Tensor:
        """The scores and the histogram of the PIT, of the model and then of the best Gaussians, (B, 1005 or 2010)."""
        task = self.task(ctx, number, run)
        voices = [self.predict(ctx, task, run)]
        if oracle is not None:
            voices.append(best_gaussians(oracle, double(task.context), task.target.times.double()))
        return torch.cat([self.measure(said, task.target.values, self._noise(ctx, run)) for said in voices], dim=1)

    @staticmethod
    def _noise(ctx: EvalContext, run: Sequence[int]) -> SampleNoise:
        return SampleNoise(run, ctx.seed, "calibration draws")

    def measure(self, said: Prediction, y: Tensor, noise: SampleNoise) -> Tensor:
        """CRPS, energy score, coverages and the histogram of the PIT of frames y (B, M, C, H, W), (B, 1005)."""
        transform = scoring_rules.mixture_pit(said.mean, said.std, y)
        frames = repeated(said, self.draws).sample(noise).flatten(1, 2)
        energy = scoring_rules.energy_score(frames, y.flatten(0, 1)).reshape(y.shape[:2]).mean(1)
        covered = [scoring_rules.coverage(transform, level / 100) for level in COVERAGES]
        columns = [scoring_rules.mixture_crps(said.mean, said.std, y), energy, *covered]
        return torch.cat([torch.stack(columns, dim=1), scoring_rules.histogram(transform, BINS)], dim=1)

    def report(
        self,
        ctx: EvalContext,
        oracle: Any,
        rows: Sequence[tuple[int | None, Tensor]],
        chosen: Sequence[int],
        result: Result,
    ) -> None:
        """The means over tasks, the distances and the two pictures."""
        voices = ("", "exact ") if oracle is not None else ("",)
        found: dict[str, list[Tensor]] = {voice: [] for voice in voices}
        for number, table in rows:
            for voice, own in zip(voices, table.chunk(len(voices), dim=1), strict=True):
                columns, counts = own[:, : len(NAMES)], own[:, len(NAMES) :]
                self.tell(result, number, {f"{voice}{name}": x for name, x in zip(NAMES, columns.unbind(1), strict=True)})
                point(result, number, f"{voice}{DISTANCE}", *uniform_distance(counts))
                found[voice].append(counts.mean(0))
        end = label(self.middle(ctx.model))
        result.headline = tuple(f"{name}{end}" for name in ("CRPS", "energy score", DISTANCE, "coverage 90 %"))
        result.notes.append("of noisy targets, none of which is in the context; a calibrated law has KS distance 0.")
        if oracle is not None:
            result.notes.append(
                "exact: the best independent Gaussians, with the exact mean and variance of each pixel; where the data is "
                "not Gaussian they need not be calibrated either."
            )
        numbers = [number for number, _ in rows]
        result.pictures["pit"] = pictures.pit(numbers, found)
        result.pictures["reliability"] = pictures.reliability(numbers, found)


def repeated(said: Prediction, draws: int) -> Prediction:
    """The prediction as it is, or where it has one draw of the latent alone, `draws` times the same."""
    if len(said.mean) > 1:
        return said
    factor = None if said.factor is None else said.factor.expand(draws, *[-1] * (said.factor.dim() - 1))
    mean, own = (x.expand(draws, *[-1] * (x.dim() - 1)) for x in (said.mean, said.own))
    return Prediction(mean, own, factor)


def uniform_distance(counts: Tensor) -> tuple[float, float]:
    """The KS distance of the PIT of all tasks to U(0, 1), and its standard error over tasks; counts: shares, (B, bins).

    max_j |F(j / bins) - j / bins|, with F the mean over tasks; the error is that of F there.
    """
    below, bins = counts.double().cumsum(1), counts.shape[1]
    gap = (below.mean(0) - torch.arange(1, bins + 1, dtype=torch.float64) / bins).abs()
    place = int(gap.argmax())
    return gap[place].item(), below[:, place].std().item() / len(counts) ** 0.5
