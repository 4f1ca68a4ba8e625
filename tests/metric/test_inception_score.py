"""Inception score: predictions whose score is known, and how it is averaged."""

import math

import pytest
import torch
from feature_toys import Values, ctx, flat, script
from torch import nn
from torchmetrics.image.inception import InceptionScore as TorchmetricsScore

from heatgen.check import ConfigError
from heatgen.metric.inception_score import ClassSums, InceptionScore


def inception_score(p):
    sums = ClassSums(1, len(p), Values(lambda features: features))
    for start, part in zip(range(0, len(p), 3), p.split(3), strict=True):
        sums.add(part, range(start, start + len(part)))
    return sums.scores.item()


def predictions(n, classes, seed=0):
    return torch.randn(n, classes, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).mul(2).softmax(1)


def test_predictions_that_never_change_score_1():
    for row in (predictions(1, 7), torch.eye(7)[2:3]):
        assert inception_score(row.expand(30, -1)) == pytest.approx(1, rel=1e-12)


@pytest.mark.parametrize("classes", [2, 10])
def test_sure_and_balanced_predictions_score_the_number_of_classes(classes):
    assert inception_score(torch.eye(classes).repeat(3, 1)) == pytest.approx(classes, rel=1e-12)


def test_a_class_that_no_sample_is_of_costs_nothing():
    """All probabilities of a class are 0, which makes 0 ln 0."""
    assert inception_score(torch.eye(6)[:4]) == pytest.approx(4, rel=1e-12)


def test_sure_predictions_score_the_exponential_of_the_entropy_of_their_classes():
    shares = torch.tensor([0.5, 0.3, 0.2])
    rows = torch.eye(3).repeat_interleave(torch.tensor([50, 30, 20]), dim=0)
    assert inception_score(rows) == pytest.approx(torch.special.entr(shares).sum().exp().item(), rel=1e-6)


def test_the_score_is_the_mean_divergence_from_the_mean_prediction_in_brute_force():
    p = predictions(20, 5)
    mean = [sum(row[c].item() for row in p) / 20 for c in range(5)]
    divergences = [sum(row[c].item() * math.log(row[c].item() / mean[c]) for c in range(5)) for row in p]
    assert inception_score(p) == pytest.approx(math.exp(sum(divergences) / 20), rel=1e-12)


@pytest.mark.filterwarnings("ignore::UserWarning:torchmetrics")
def test_the_score_over_parts_is_the_one_of_torchmetrics():
    """Which shuffles the samples first; logits are taken as features."""
    logits = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    theirs = TorchmetricsScore(feature=nn.Identity(), splits=4)
    theirs.features = [logits]
    torch.manual_seed(3)
    mean, spread = theirs.compute()
    torch.manual_seed(3)
    order = torch.randperm(40)
    ours = InceptionScore(splits=4).of_features(logits[order], Values(lambda f: f.softmax(1)))
    assert ours.values["inception_score"] == pytest.approx(mean.item(), rel=1e-5)
    assert ours.facts["std_over_splits"] == pytest.approx(spread.item(), rel=1e-4)


def test_the_score_is_the_mean_over_parts_in_order_and_its_spread():
    p = torch.cat([torch.eye(4)[:2].repeat(3, 1), torch.eye(4)])  # two classes, then four; parts of 5
    result = InceptionScore(splits=2).of_features(p, Values(lambda features: features))
    scores = torch.tensor([inception_score(part) for part in (p[:5], p[5:])])
    assert scores[0] < 2 < scores[1]
    assert result.values["inception_score"] == pytest.approx(scores.mean().item(), rel=1e-6)
    assert result.facts["splits"] == 2
    assert result.facts["std_over_splits"] == pytest.approx((scores[1] - scores[0]).item() / 2**0.5, rel=1e-5)


def test_one_part_is_scored_whole_and_has_no_spread():
    p = predictions(11, 3)
    result = InceptionScore(splits=1).of_features(p, Values(lambda features: features))
    assert result.values["inception_score"] == pytest.approx(inception_score(p), rel=1e-6)
    assert math.isnan(result.facts["std_over_splits"])


def test_a_part_needs_two_samples():
    metric, extractor = InceptionScore(splits=10), Values(lambda features: features)
    with pytest.raises(ConfigError, match=r"metric\.splits.*at least 20"):
        metric.of_features(predictions(19, 3), extractor)
    metric.of_features(predictions(20, 3), extractor)
    with pytest.raises(ConfigError, match=r"metric\.splits must be a whole number of at least 1"):
        InceptionScore(splits=0)


def test_an_extractor_without_classes_is_refused_by_name(tmp_path):
    path = script(tmp_path / "plain.pt", nn.Flatten())
    measured = ctx(tmp_path, test=flat(range(30)))
    with pytest.raises(ConfigError, match=r"plain\.pt, BLAKE2b .* knows no classes, .* use metric\.extractor=classifier"):
        InceptionScore(source="test", extractor=str(path))(measured)


def test_one_sample_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="n must be"):
        InceptionScore(source="test")(ctx(tmp_path, n=1, test=flat([1, 2])))


def test_no_reference_is_read(tmp_path, monkeypatch):
    """Its only split is the one that is measured."""
    monkeypatch.setattr(InceptionScore, "make_extractor", lambda self, ctx: Values(lambda f: nn.functional.softmax(f, 1)))
    result = InceptionScore(source="test", splits=3)(ctx(tmp_path, test=flat(range(30))))
    assert "reference" not in result.facts and result.facts["n"] == 30
    assert result.values["inception_score"] == pytest.approx(1, abs=1e-6)  # all 30 features of an image are equal
