"""mode=precision_recall: how many samples look real, and how much of what is real the samples reach."""

from typing import Unpack

from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.images import shuffled
from heatgen.metric.extractor import Extractor
from heatgen.metric.features import FeatureMetric, FeatureSettings
from heatgen.metric.neighbours import covered, nearest_distances
from heatgen.metric.reduction import Rows
from heatgen.metric.result import Result, Value


def share(name: str, inside: Tensor, over: str) -> Value:
    """The share of images that are inside, with its binomial standard error; none where all or no image is."""
    p = inside.double().mean().item()
    return Value(name, p, (p * (1 - p) / (len(inside) - 1)) ** 0.5 if 0 < p < 1 else None, over=over)


class PrecisionRecall(FeatureMetric[Rows]):
    """Precision: the share of samples within the reference's manifold, the balls to the k-th neighbour. Recall: the reverse.

    Between 0 and 1, higher is better; both depend on the number of images, so compare at equal n and reference. Balls are
    closed, and distances of equal features exactly 0: a copy of a reference image is precise, also where the image has k
    copies and a ball of radius 0. The standard errors are binomial, over the images that lie in the balls or not; they take
    the balls as given. The features of all images are held in memory, 8 kB an image with Inception.

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

    def measure(self, features: Rows, reference: Rows, extractor: Extractor, seed: int) -> Result:
        x, y = (
            z.tensor[shuffled(len(z), seed, "precision and recall")[: self.largest]].double() for z in (features, reference)
        )
        if min(len(x), len(y)) <= self.k:
            raise ConfigError(
                f"precision and recall need more than {self.k} images of either kind; raise n or metric.largest."
            )
        of_y, of_x = nearest_distances(y, self.k), nearest_distances(x, self.k)
        precision = share("precision", covered(x, y, of_y), "samples, the balls given")
        recall = share("recall", covered(y, x, of_x), "reference images, the balls given")
        notes = [
            f"{points} of the {len(radii)} balls around {what} are points ({self.k} copies and more of one image): only "
            "their copies lie in them."
            for what, radii in (("reference images", of_y), ("samples", of_x))
            if (points := int((radii == 0).sum()))
        ]
        return Result([precision, recall], {"k": self.k, "balls": len(y)}, notes, headline=("precision", "recall"))
