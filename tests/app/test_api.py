"""heatgen from Python."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import call

import heatgen
from heatgen.check import ConfigError


def test_the_package_imports_without_torch_and_offers_its_names() -> None:
    code = "import sys, heatgen; assert not {'torch', 'hydra'} & set(sys.modules); print(*dir(heatgen))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {"load", "sample", "compose"} <= set(done.stdout.split())
    with pytest.raises(AttributeError, match="lod"):
        heatgen.lod  # noqa: B018


def test_a_config_is_composed_with_its_values() -> None:
    cfg = heatgen.compose("model=ihd", "forward=constant_velocity", "data=digits", "seed=3")
    assert cfg.name == "ihd-constant_velocity-digits" and cfg.seed == 3 and list(cfg.forward.shape) == [1, 8, 8]
    assert "hydra" not in cfg
    assert heatgen.compose("mode=fid", verb="evaluate").metric._target_ == "heatgen.metric.fid.FID"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("model=idh", "did you mean ihd?"),
        ("modle=ihd", "did you mean model?"),
        ("model=_base", "is not an option"),
        ("regime=forcast", "did you mean forecast?"),
        ("seed=[", "cannot be read"),
    ],
)
def test_a_config_that_cannot_be_composed_says_why(word: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        heatgen.compose(word)
    assert hint in str(caught.value)


@pytest.mark.slow
def test_samples_are_those_of_the_command_line(own_run: Path) -> None:
    assert call("sample", f"run={own_run}", "n=3", "delta=0.02", "trainer.accelerator=cpu") == 0
    (path,) = (own_run / "samples").glob("delta_*/samples.pt")
    expected = torch.load(path, weights_only=True)["samples"]
    run = heatgen.load(own_run, device="cpu", delta=0.02)
    for samples in (heatgen.sample(run, n=3, batch_size=2), heatgen.sample(own_run, n=3, device="cpu", delta=0.02)):
        assert torch.allclose(samples, expected, atol=1e-6)
    with pytest.raises(ConfigError, match="delta"):
        heatgen.sample(run, n=3, delta=0.01)
    with pytest.raises(ConfigError, match="n must be"):
        heatgen.sample(run, n=0)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["model=oracle", "data=grf", "data.resolution=8", "data.train_size=8", "data.val_size=4", "forward=stochastic_heat"],
        ["model=diffusion", "net=mlp", "data=two_points", "forward=variance_exploding", "trainer.max_steps=1"],
    ],
    ids=["oracle", "measured"],
)
def test_a_run_that_must_be_calibrated_is_ready_to_sample(words: list[str], tmp_path: Path) -> None:
    small = ["forward.num_levels=3", "trainer.accelerator=cpu", "callback=none", f"hydra.run.dir={tmp_path / 'run'}"]
    assert call("train", *words, *small) == 0
    samples = heatgen.sample(heatgen.load(tmp_path / "run", device="cpu"), n=2)
    assert len(samples) == 2 and samples.isfinite().all()
