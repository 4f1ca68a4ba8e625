"""What notebooks show of samples and results: whole pages of text and pictures, with nothing of a run's that could act."""

import base64
import io
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.metric.result import Result, Series, Value
from heatgen.report.notebook import EvaluationResult, Samples

EVIL = "<script>alert('&')</script>"


def pictures(page: str) -> list[Image.Image]:
    found = re.findall(r'src="data:image/(?:png|gif);base64,([^"]+)"', page)
    return [Image.open(io.BytesIO(base64.b64decode(content))) for content in found]


@pytest.fixture
def samples() -> Samples:
    u = torch.linspace(-1, 1, 4 * 64).reshape(4, 1, 8, 8)
    states = torch.stack([0 * u, u], dim=1)
    return Samples(
        u,
        -u,
        states,
        {"seed": 3, "sampler": EVIL, "n": None, "rho": 7.0, "share_noise": False, "same_init": True},
        DataSpec((1, 8, 8), (-1.0, 1.0), bits=None),
    )


def result() -> EvaluationResult:
    numbers = [Value("mse", 0.125, 0.01, EVIL, label="error of <u>"), Value("gap", 2.0)]
    curves = [Series("level", [1.0, 2.0]), Series("loss", [3.0, float("nan")], label=EVIL)]
    image = Image.new("RGB", (9, 7), (10, 20, 30))
    given = Result(numbers, {"n": EVIL}, [EVIL], curves, {EVIL: image, "film": [image, Image.new("RGB", (9, 7))]}, ("mse",))
    return EvaluationResult.of(EVIL, given)


def test_a_page_of_samples_shows_them_in_their_range(samples: Samples) -> None:
    page = samples._repr_html_()
    (shown,) = pictures(page)
    assert shown.tobytes() == samples.picture().tobytes() and shown.getextrema()[0] == (0, 255)
    assert "<script>" not in page and "&lt;script&gt;" in page and "seed: 3" in page and "n: None" not in page
    assert len(samples) == 4 and repr(samples) == f"Samples([4, 1, 8, 8], seed: 3; sampler: {EVIL}; same_init: True)"


def test_samples_are_saved_as_tensors_a_grid_or_a_film(samples: Samples, tmp_path: Path) -> None:
    kept = torch.load(samples.save(tmp_path / "a.pt"), weights_only=True)
    assert torch.equal(kept["samples"], samples.tensor) and kept["settings"]["seed"] == 3
    assert Image.open(samples.save(tmp_path / "a.png")).size == samples.picture().size
    assert Image.open(samples.save(str(tmp_path / "a.gif"))).n_frames == 2
    with pytest.raises(ConfigError, match=r"must end in .pt, .png or .gif"):
        samples.save(tmp_path / "a.txt")


def test_a_page_of_a_result_holds_all_of_it_and_nothing_acts() -> None:
    found = result()
    page = found._repr_html_()
    assert "<script>" not in page and page.count("&lt;script&gt;") >= 5 and "error of &lt;u&gt;" in page
    assert "0.125 ± 0.01" in page and page.count("<tr>") == 3
    series, still, film = pictures(page)
    assert still.getpixel((0, 0)) == (10, 20, 30) and getattr(film, "n_frames", 1) == 2 and series.width > 100
    assert (
        found["mse"] == 0.125 and found.values["mse"].error == 0.01 and [value.name for value in found.headline] == ["mse"]
    )
