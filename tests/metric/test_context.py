"""The gates of every metric: samples, rows and results that are not finite."""

import math

import pytest
import torch
from feature_toys import ctx, faithful, flat, script

from heatgen.check import ConfigError
from heatgen.metric.context import marked
from heatgen.metric.fid import FID
from heatgen.metric.memorisation import Memorisation
from heatgen.metric.result import Result, Series, Value

BYTES = flat(list(range(20)))


def diverging(bad: float) -> object:
    """A model one of whose samples is not finite."""

    def way_back(u: torch.Tensor) -> torch.Tensor:
        u = u.clone()
        u[u.flatten(1)[:, 0] == 7 / 255, 0, 1, 2] = bad
        return u

    model = faithful(way_back)
    model.divergence = lambda: "use another sampler"
    return model


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_no_metric_of_samples_takes_one_that_is_not_finite(bad, tmp_path):
    weights = str(script(tmp_path / "net.pt", torch.nn.Flatten()))
    for metric in (FID(extractor=weights), Memorisation()):
        with pytest.raises(ConfigError, match=r"1 of 20 samples hold NaN or inf .*; use another sampler\."):
            metric(ctx(tmp_path, 20, diverging(bad), train=BYTES, test=BYTES, val=BYTES))


def test_an_extractor_that_gives_nan_is_named_and_nothing_is_kept(tmp_path):
    class Log(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1).log() - x.flatten(1).log()  # NaN where the byte is 0

    weights = str(script(tmp_path / "net.pt", Log()))
    with pytest.raises(ConfigError, match=r"1 of 20 rows of features of train hold NaN .*net.pt.* gives no finite features"):
        FID(extractor=weights)(ctx(tmp_path, 20, faithful(lambda u: u), train=BYTES, test=BYTES))
    assert not list(tmp_path.glob("statistics/*"))


def test_a_result_states_what_is_not_defined_and_is_refused_where_its_headline_is():
    curves = [Series("k", [0.0, 1.0]), Series("information", [math.inf, 2.0])]
    values = [Value("fid", 1.0, math.nan, label="FID"), Value("ratio", math.nan)]
    words = "ratio (nan), the standard error of FID (nan), information at 1 of 2 places"
    assert marked(Result(values, curves=curves), "fid").notes == [f"not defined here, and null in the JSON file: {words}."]
    assert not marked(Result([Value("fid", 1.0, 0.1)]), "fid").notes
    with pytest.raises(ConfigError, match=r"mode=fid gives no finite FID \(inf\), so nothing is written"):
        marked(Result([Value("fid", math.inf, label="FID")]), "fid")
