"""mode=inception_score: how sure a classifier is of each sample, and how many classes it sees in all."""

from collections.abc import Sequence
from typing import Self, Unpack

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.metric.extractor import Extractor
from heatgen.metric.features import FeatureMetric, FeatureSettings
from heatgen.metric.reduction import BLOCK, Reduction
from heatgen.metric.result import Result, Value
from heatgen.runtime.devices import Devices


class ClassSums(Reduction):
    """What the Inception score of each of the parts of n samples needs: sums of p(y | x) and of p log p over classes y.

    Args:
        parts: how many; the first n mod parts of them have one sample more.
        n: how many samples there will be.
        extractor: features -> class probabilities.
    """

    sums = ("numbers", "classes", "entropies")

    def __init__(self, parts: int, n: int, extractor: Extractor):
        super().__init__()
        self.starts = torch.tensor([0, *(len(part) for part in torch.arange(n).tensor_split(parts))]).cumsum(0)
        self.extractor, self.depends = extractor, f"{parts} of {n}"
        self.numbers = torch.zeros(parts, dtype=torch.float64)
        self.classes, self.entropies = torch.zeros(parts, 0, dtype=torch.float64), torch.zeros(parts, dtype=torch.float64)

    def absorb(self, rows: Tensor, places: Sequence[int]) -> None:
        p = self.extractor.probabilities(rows)
        assert p is not None
        p, which = p.double(), torch.bucketize(torch.as_tensor(places), self.starts, right=True) - 1
        if not self.classes.shape[1]:
            self.classes = torch.zeros(len(self.numbers), p.shape[1], dtype=torch.float64)
        self.numbers.index_add_(0, which, torch.ones(len(p), dtype=torch.float64))
        self.classes.index_add_(0, which, p)
        self.entropies.index_add_(0, which, torch.special.xlogy(p, p).sum(1))

    def together(self, devices: Devices) -> Self:
        super().together(devices)
        mine = [x[None] if self.classes.shape[1] else x[:0] for x in (self.numbers, self.classes, self.entropies)]
        found = [devices.to_first(x) for x in mine]
        if devices.first:
            self.numbers, self.classes, self.entropies = (x.sum(0) for x in found)
        return self

    @property
    def scores(self) -> Tensor:
        """exp(mean KL(p(y | x) || p(y))) of each part, from 1 to the number of classes.

        Source: Salimans et al. 2016, section 4.
        """
        p = self.classes / self.numbers[:, None]
        output: Tensor = (self.entropies / self.numbers - torch.special.xlogy(p, p).sum(1)).exp()
        return output


class InceptionScore(FeatureMetric[ClassSums]):
    """inception_score, the mean over `splits` parts of the samples; higher is better.

    Inception's probabilities are the softmax of its logits without the last layer's bias, as in the published score. Papers
    give the deviation over parts; the standard error is that over the root of their number. Neither knows of the bias by n:
    a part of few samples scores too low. Only sums over classes are held.

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

    def reduction(self, n: int, extractor: Extractor) -> ClassSums:
        return ClassSums(self.splits, n, extractor)

    def of_features(self, features: Tensor, extractor: Extractor) -> Result:
        """The numbers of features (N, F)."""
        self.require(len(features), extractor)
        sums = self.reduction(len(features), extractor).fill(features.split(BLOCK))
        return self.measure(sums, sums, extractor, seed=0)

    def measure(self, features: ClassSums, reference: ClassSums, extractor: Extractor, seed: int) -> Result:
        self.require(len(features), extractor)
        check.finite("parts of class probabilities", features.classes, f"use another extractor than {extractor.name}")
        scores = features.scores
        spread = scores.std().item() if self.splits > 1 else float("nan")
        error = spread / self.splits**0.5 if self.splits > 1 else None
        facts: dict[str, object] = {"splits": self.splits, "std_over_splits": spread, "probabilities": extractor.logits}
        over = f"samples, in {self.splits} disjoint parts"
        value = Value("inception_score", scores.mean().item(), error, label="Inception score", over=over)
        notes, (n, classes), size = [], (len(features), features.classes.shape[1]), len(features) // self.splits
        if size * self.splits < n:
            notes.append(f"{n} samples are {self.splits} parts of {size} or {size + 1}: they weigh the same.")
        if size < classes:
            notes.append(f"a part of {size} samples cannot score more than {size}, fewer than the {classes} classes.")
        return Result([value], facts=facts, notes=notes)

    def require(self, n: int, extractor: Extractor) -> None:
        if n < 2 * self.splits:
            raise ConfigError(f"metric.splits = {self.splits} needs n of at least {2 * self.splits}, not {n}.")
        if extractor.logits is None:
            raise ConfigError(
                f"{extractor.name} knows no classes, which mode=inception_score needs; use metric.extractor=classifier, or "
                "metric.weights with clean-fid's own Inception file."
            )
