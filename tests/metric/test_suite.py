"""mode=suite: one set of samples, measured by every metric of features."""

import pytest
import torch
from feature_toys import Values, ctx, faithful, flat

from heatgen.check import ConfigError
from heatgen.metric.fid import FID
from heatgen.metric.inception_score import InceptionScore
from heatgen.metric.kid import KID
from heatgen.metric.precision_recall import PrecisionRecall
from heatgen.metric.reduction import Moments, Rows
from heatgen.metric.suite import Suite


def softmax(features):
    return features.softmax(1)


def features(n, seed):
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "splits"), [(50, 10), (9, 4)])
def test_its_numbers_are_those_of_its_parts(n, splits):
    x, y, extractor = features(n, 0), features(60, 1), Values(softmax)
    parts = [FID(), KID(), PrecisionRecall(), InceptionScore(splits=splits)]
    kinds = (lambda z: Moments.of([z]), Rows.of, Rows.of)
    expected = [part.measure(kind(x), kind(y), extractor, seed=5) for part, kind in zip(parts[:3], kinds, strict=False)]
    expected.append(parts[3].of_features(x, extractor))
    result = Suite().measure(Rows.of(x), Rows.of(y), extractor, seed=5)
    assert list(result.values) == ["fid", "kid", "precision", "recall", "inception_score"]
    assert result.values == {key: value for part in expected for key, value in part.values.items()}
    assert all(result.facts[key] == value for part in expected for key, value in part.facts.items())
    assert result.notes == [note for part in expected for note in part.notes]


def test_it_says_that_there_is_no_inception_score_where_the_extractor_knows_no_classes():
    result = Suite().measure(Rows.of(features(20, 0)), Rows.of(features(30, 1)), Values(), seed=0)
    assert list(result.values) == ["fid", "kid", "precision", "recall"]
    assert result.notes[0] == "no Inception score: values knows no classes."


def test_the_caveats_of_its_parts_are_told():
    result = Suite().measure(Rows.of(features(4, 0)), Rows.of(features(30, 1)), Values(), seed=0)
    assert not any("biased" in note for note in result.notes)
    x, y = (torch.cat([features(n, n)] * 3, dim=1) for n in (5, 30))
    notes = Suite().measure(Rows.of(x), Rows.of(y), Values(), seed=0).notes
    assert notes[1].startswith("only 5 images, fewer than the 12 features") and notes[2].startswith("KID is unbiased")


def test_samples_are_drawn_once(tmp_path, monkeypatch):
    drawn = []

    def way_back(u):
        drawn.extend(u)
        return u

    monkeypatch.setattr(Suite, "make_extractor", lambda self, ctx: Values(softmax))
    measured = ctx(tmp_path, n=10, model=faithful(way_back), train=flat([0, 30, 90, 120, 200, 255, 17, 40, 5, 66]))
    result = Suite()(measured)
    assert len(drawn) == 10 and result.facts["delta"] == "0.25"
    assert result.values["fid"] == pytest.approx(0, abs=1e-4)
    assert (result.values["precision"], result.values["recall"]) == (1, 1)


def test_one_sample_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="n must be"):
        Suite(source="test")(ctx(tmp_path, n=1, train=flat([1, 2]), test=flat([1, 2])))
