"""mode=suite: FID, KID, precision, recall and, where the extractor has classes, Inception score, of one set of samples."""

from heatgen.check import ConfigError
from heatgen.metric.extractor import Extractor
from heatgen.metric.features import FeatureMetric
from heatgen.metric.fid import FID
from heatgen.metric.inception_score import InceptionScore
from heatgen.metric.kid import KID
from heatgen.metric.precision_recall import PrecisionRecall
from heatgen.metric.reduction import Moments, Rows
from heatgen.metric.result import Result


class Suite(FeatureMetric[Rows]):
    """All metrics of features at once, with their own default settings: samples are drawn, and features taken, only once.

    The features of all images are held in memory, 8 kB an image with Inception.
    """

    def measure(self, features: Rows, reference: Rows, extractor: Extractor, seed: int) -> Result:
        self.require(min(len(features), len(reference)), extractor)
        first, second = (Moments.of([kept.tensor]) for kept in (features, reference))
        results = [FID().measure(first, second, extractor, seed)]
        results += [part.measure(features, reference, extractor, seed) for part in (KID(), PrecisionRecall())]
        notes = []
        if extractor.logits is not None:
            score = InceptionScore(splits=min(10, len(features) // 2))
            results.append(score.of_features(features.tensor, extractor))
        else:
            notes.append(f"no Inception score: {extractor.name} knows no classes.")
        values = [value for result in results for value in result.numbers]
        facts = {key: value for result in results for key, value in result.facts.items()}
        return Result(values, facts=facts, notes=[*notes, *(note for result in results for note in result.notes)])

    def require(self, n: int, extractor: Extractor) -> None:
        if n < 4:
            raise ConfigError("mode=suite needs at least 4 samples and 4 images to compare with; raise n.")
