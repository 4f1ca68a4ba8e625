"""mode=precision_recall: how many samples look real, and how much of what is real the samples reach."""

from typing import Unpack

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.images import shuffled
from heatgen.metric.extractor import Extractor
from heatgen.metric.features import FeatureMetric, FeatureSettings
from heatgen.metric.result import Result, Value

BLOCK = 2048  # rows of a distance matrix at a time


def nearest_distances(features: Tensor, k: int) -> Tensor:
    """The distance of each feature to its k-th nearest neighbour among the others, (N,)."""
    rows = [torch.cdist(block, features).kthvalue(k + 1, dim=1).values for block in features.split(BLOCK)]
    return torch.cat(rows)  # the nearest of all is the feature itself


def covered(features: Tensor, centres: Tensor, radii: Tensor) -> float:
    """The share of features that lie in a ball around some centre."""
    inside = [(torch.cdist(block, centres) <= radii).any(1) for block in features.split(BLOCK)]
    return torch.cat(inside).double().mean().item()


class PrecisionRecall(FeatureMetric):
    """Precision: the share of samples within the reference's manifold, the balls to the k-th neighbour. Recall: the reverse.

    Between 0 and 1, higher is better; both depend on the number of images, so compare at equal n and reference.

    Args:
        k: neighbours that a ball reaches to.
        largest: at most so many images of either set are taken, a fixed random choice, as the cost grows with the square.
        **settings: those of `FeatureMetric`.

    Raises:
        ConfigError: where there are not more than k images.

    Source:
        Kynkaanniemi et al. 2019, eqs. 1 and 2, k = 3.
    """

    def __init__(self, k: int = 3, largest: int = 10000, **settings: Unpack[FeatureSettings]):
        super().__init__(**settings)
        self.k = check.integer("metric.k", k, minimum=1)
        self.largest = check.integer("metric.largest", largest, minimum=2)

    def measure(self, features: Tensor, reference: Tensor, extractor: Extractor, seed: int) -> Result:
        x, y = (z[shuffled(len(z), seed, "precision and recall")[: self.largest]].double() for z in (features, reference))
        if min(len(x), len(y)) <= self.k:
            raise ConfigError(
                f"precision and recall need more than {self.k} images of either kind; raise n or metric.largest."
            )
        precision = covered(x, y, nearest_distances(y, self.k))
        recall = covered(y, x, nearest_distances(x, self.k))
        return Result(
            [Value("precision", precision), Value("recall", recall)],
            facts={"k": self.k, "balls": len(y)},
            headline=("precision", "recall"),
        )
