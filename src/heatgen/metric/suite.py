"""mode=suite: FID, KID, precision, recall and, where the extractor has classes, Inception score, of one set of samples."""

from torch import Tensor

from heatgen.check import ConfigError
from heatgen.metric.extractor import Extractor
from heatgen.metric.features import FeatureMetric
from heatgen.metric.fid import FID
from heatgen.metric.inception_score import InceptionScore
from heatgen.metric.kid import KID
from heatgen.metric.precision_recall import PrecisionRecall
from heatgen.metric.result import Result


class Suite(FeatureMetric):
    """All metrics of features at once, with their own default settings: samples are drawn, and features taken, only once."""

    def measure(self, features: Tensor, reference: Tensor, extractor: Extractor, seed: int) -> Result:
        self.require(min(len(features), len(reference)), extractor)
        parts: list[FeatureMetric] = [FID(), KID(), PrecisionRecall()]
        notes = []
        if extractor.logits is not None:
            parts.append(InceptionScore(splits=min(10, len(features) // 2)))
        else:
            notes.append(f"no Inception score: {extractor.name} knows no classes.")
        results = [part.measure(features, reference, extractor, seed) for part in parts]
        values = [value for result in results for value in result.numbers]
        facts = {key: value for result in results for key, value in result.facts.items()}
        return Result(values, facts=facts, notes=[*notes, *(note for result in results for note in result.notes)])

    def require(self, n: int, extractor: Extractor) -> None:
        if n < 4:
            raise ConfigError("mode=suite needs at least 4 samples and 4 images to compare with; raise n.")
