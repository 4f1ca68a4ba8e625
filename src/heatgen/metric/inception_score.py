"""mode=inception_score: how sure a classifier is of each sample, and how many classes it sees in all."""

import math
from typing import Unpack

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.metric.extractor import Extractor
from heatgen.metric.features import FeatureMetric, FeatureSettings
from heatgen.metric.result import Result, Value


def inception_score(probabilities: Tensor) -> float:
    """exp(mean KL(p(y | x) || p(y))), from 1 to the number of classes; probabilities: (N, classes). In float64.

    Source: Salimans et al. 2016, section 4.
    """
    p = probabilities.double()
    return math.exp((torch.special.xlogy(p, p) - torch.special.xlogy(p, p.mean(0))).sum(1).mean().item())


class InceptionScore(FeatureMetric):
    """inception_score, the mean over `splits` parts of the samples; higher is better.

    Inception's probabilities are the softmax of its logits without the last layer's bias, as in the published score. Papers
    give the deviation over parts; the standard error is that over the root of their number. Neither knows of the bias by n:
    a part of few samples scores too low.

    Args:
        splits: parts of the samples that are averaged.
        **settings: those of `FeatureMetric`.

    Raises:
        ConfigError: for an extractor without classes, or fewer than two samples a part.
    """

    needs_reference = False

    def __init__(self, splits: int = 10, **settings: Unpack[FeatureSettings]):
        super().__init__(**settings)
        self.splits = check.integer("metric.splits", splits, minimum=1)

    def measure(self, features: Tensor, reference: Tensor, extractor: Extractor, seed: int) -> Result:
        self.require(len(features), extractor)
        probabilities = extractor.probabilities(features)
        assert probabilities is not None
        check.finite("class probabilities of samples", probabilities, f"use another extractor than {extractor.name}")
        scores = torch.tensor(
            [inception_score(part) for part in probabilities.tensor_split(self.splits)], dtype=torch.float64
        )
        spread = scores.std().item() if self.splits > 1 else float("nan")
        error = spread / self.splits**0.5 if self.splits > 1 else None
        facts: dict[str, object] = {"splits": self.splits, "std_over_splits": spread, "probabilities": extractor.logits}
        over = f"samples, in {self.splits} disjoint parts"
        value = Value("inception_score", scores.mean().item(), error, label="Inception score", over=over)
        return Result([value], facts=facts, notes=self.caveats(len(features), probabilities.shape[1]))

    def require(self, n: int, extractor: Extractor) -> None:
        if n < 2 * self.splits:
            raise ConfigError(f"metric.splits = {self.splits} needs n of at least {2 * self.splits}, not {n}.")
        if extractor.logits is None:
            raise ConfigError(
                f"{extractor.name} knows no classes, which mode=inception_score needs; use metric.extractor=classifier, or "
                "metric.weights with clean-fid's own Inception file."
            )

    def caveats(self, n: int, classes: int) -> list[str]:
        """What a reader must know of parts of n samples that are unequal, or too few to be of every class."""
        size, notes = n // self.splits, []
        if size * self.splits < n:
            notes.append(f"{n} samples are {self.splits} parts of {size} or {size + 1}: they weigh the same.")
        if size < classes:
            notes.append(f"a part of {size} samples cannot score more than {size}, fewer than the {classes} classes.")
        return notes
