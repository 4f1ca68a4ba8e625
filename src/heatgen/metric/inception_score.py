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
    """inception_score, the mean over `splits` parts of the samples and its spread; higher is better.

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
        if len(features) < 2 * self.splits:
            raise ConfigError(f"metric.splits = {self.splits} needs n of at least {2 * self.splits}, not {len(features)}.")
        probabilities = extractor.probabilities(features)
        if probabilities is None:
            raise ConfigError(
                f"{extractor.name} knows no classes, which mode=inception_score needs; use metric.extractor=classifier, or "
                "metric.weights with clean-fid's own Inception file."
            )
        scores = torch.tensor([inception_score(part) for part in probabilities.tensor_split(self.splits)])
        spread = scores.std().item() if self.splits > 1 else float("nan")
        value = Value("inception_score", scores.mean().item(), label="Inception score")
        return Result([value], facts={"splits": self.splits, "std_over_splits": spread})
