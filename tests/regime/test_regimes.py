"""The regimes: what is given and what is asked for never overlap, and stand in time as the name says."""

import pytest
import torch
from scipy import stats

from heatgen.check import ConfigError
from heatgen.noise import SampleNoise
from heatgen.regime.first_frame import FirstFrame
from heatgen.regime.forecast import Forecast
from heatgen.regime.random import Random
from heatgen.regime.retrodict import Retrodict
from heatgen.regime.sensors import Sensors

COUNT, B = 20, 600
WITH_CONTEXT = [Random, Forecast, Retrodict, Sensors]
every = pytest.mark.parametrize("regime", [*WITH_CONTEXT, FirstFrame])


def noise(seed=0, b=B):
    return SampleNoise(range(b), seed)


@every
def test_targets_are_frames_that_are_not_given(regime):
    split = regime()(COUNT, noise())
    assert split.context.shape == split.context_mask.shape and split.target.shape == (B, 8)
    for context, given, target in zip(split.context, split.context_mask, split.target, strict=True):
        seen, asked = context[given].tolist(), target.tolist()
        assert len(set(seen)) == len(seen) and len(set(asked)) == 8 and not set(seen) & set(asked)
        assert all(0 <= k < COUNT for k in (*context.tolist(), *asked))


@every
def test_a_split_depends_on_the_sample_alone(regime):
    whole = regime()(COUNT, noise())
    part = regime()(COUNT, SampleNoise(range(100, 110), 0))
    for name in ("context", "context_mask", "target"):
        assert torch.equal(getattr(whole, name)[100:110], getattr(part, name))
    assert not torch.equal(whole.target, regime()(COUNT, noise(1)).target)


@pytest.mark.parametrize("regime", WITH_CONTEXT)
def test_the_number_of_context_frames_is_uniform(regime):
    number = regime(context=[0, 3])(COUNT, noise()).context_mask.sum(1)
    assert stats.chisquare(torch.bincount(number, minlength=4).numpy()).pvalue > 1e-3
    assert regime(context=[2, 2])(COUNT, noise()).context_mask.all()
    assert regime(context=[0, 0])(COUNT, noise()).context.shape == (B, 0)


def test_time_runs_as_the_name_says():
    past, future = Forecast()(COUNT, noise()), Retrodict()(COUNT, noise())
    assert (past.context.masked_fill(~past.context_mask, -1).amax(1) < past.target.amin(1)).all()
    assert (future.context.masked_fill(~future.context_mask, COUNT).amin(1) > future.target.amax(1)).all()
    assert not FirstFrame()(COUNT, noise()).context.any() and FirstFrame()(COUNT, noise()).context_mask.all()
    mixed = Random(context=[5, 5])(COUNT, noise())
    assert (mixed.context.amin(1) < mixed.target.amin(1)).any() and (mixed.context.amax(1) > mixed.target.amax(1)).any()


@pytest.mark.parametrize(("regime", "frames"), [(Random, 20), (FirstFrame, 19)])
def test_every_frame_is_asked_for_equally_often(regime, frames):
    asked = torch.bincount(regime()(COUNT, noise()).target.flatten(), minlength=COUNT)[COUNT - frames :]
    assert stats.chisquare(asked.numpy()).pvalue > 1e-3


def test_forecasts_choose_their_frames_evenly():
    split = Forecast(context=[3, 3], targets=4)(COUNT, noise())
    used = torch.bincount(torch.cat([split.context, split.target], 1).flatten(), minlength=COUNT)
    assert stats.chisquare(used.numpy()).pvalue > 1e-3


def test_sensors_say_how_many_pixels_are_seen():
    assert Sensors(sensors=5)(COUNT, noise()).sensors == 5 and Random()(COUNT, noise()).sensors is None


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"context": [1, 5], "targets": 16}, r"ask for up to 21 frames of 20; use fewer, or raise forward\.num_levels"),
        ({"context": [3, 2]}, r"^regime\.context must ascend"),
        ({"context": 3}, r"^regime\.context must be two numbers"),
        ({"context": [-1, 2]}, r"^regime\.context must be a whole number of at least 0"),
        ({"sensors": 0}, r"^regime\.sensors must be a whole number of at least 1"),
        ({"targets": 0}, r"^regime\.targets must be a whole number of at least 1"),
    ],
)
@pytest.mark.parametrize("regime", WITH_CONTEXT)
def test_what_does_not_fit_is_refused_by_key(regime, options, sentence):
    with pytest.raises(ConfigError, match=sentence):
        regime(**options)(COUNT, noise(b=2))


def test_too_many_targets_after_the_first_frame_are_refused():
    with pytest.raises(ConfigError, match="ask for up to 21 frames of 20"):
        FirstFrame(targets=20)(COUNT, noise(b=2))


def test_a_regime_is_measured_with_other_numbers_of_frames():
    assert Forecast().sized(3, 4) == Forecast(context=(3, 3), targets=4)
    assert FirstFrame().sized(None, 4) == FirstFrame(targets=4) and FirstFrame().context is None
    assert Sensors(sensors=5).sized(1, 2).sensors == 5
