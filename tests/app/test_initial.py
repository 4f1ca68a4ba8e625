"""init_from, model.freeze and numbered checkpoints: weights of an old run, some of which stay, and weights on the way."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import call

from heatgen.runtime.directory import snapshots

FNO = ["model=supervised", "net=fno", "data=grf", "data.resolution=8", "data.train_size=16", "data.val_size=8"]
FNO += ["data.test_size=8", "data.batch_size=8", "net.width=8", "net.modes=3", "evaluate=[]", "trainer.max_steps=3"]
FNO += ["model.warmup_steps=0", "optimizer.lr=0.01", "trainer.accelerator=cpu", "callback=[checkpoints,ema]"]
SHORT = [*FNO, "forward.num_levels=5"]


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that is done; do not write to it."""
    folder = tmp_path_factory.mktemp("old") / "run"
    assert call("train", *SHORT, f"hydra.run.dir={folder}") == 0
    return folder


def content(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
    return found


def averages(folder: Path) -> dict[str, torch.Tensor]:
    state = content(folder)
    names = [name for name in state["state_dict"] if name.startswith("net.")]
    return dict(zip(names, state["callbacks"]["EMA"]["averages"], strict=True))


def facts(folder: Path) -> dict[str, Any]:
    (path,) = folder.glob("evaluation/train_*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found["facts"] | found["values"]


def test_a_new_run_begins_with_the_averages_of_an_old_one_whatever_the_map_and_goes_on_by_itself(
    old: Path, tmp_path: Path
) -> None:
    new, wanted = tmp_path / "new", averages(old)
    words = [*FNO, "forward.num_levels=7", f"init_from={old}", f"hydra.run.dir={new}"]
    assert call("train", *words, "optimizer.lr=0") == 0
    state = content(new)["state_dict"]
    assert all(torch.equal(state[name], tensor) for name, tensor in wanted.items())
    assert not all(torch.equal(content(old)["state_dict"][name], tensor) for name, tensor in wanted.items())
    assert facts(new)["initial weights"] == str(old / "checkpoints" / "last.ckpt")
    assert call("train", f"resume={new}", "trainer.max_steps=5", "optimizer.lr=0.01") == 0
    assert not any(torch.equal(content(new)["state_dict"][name], tensor) for name, tensor in wanted.items())


def test_frozen_weights_stay_as_they_were_and_the_others_do_not(old: Path, tmp_path: Path) -> None:
    new, wanted = tmp_path / "new", averages(old)
    words = [f"init_from={old}/checkpoints/last.ckpt", "model.freeze=['net.in_conv.*']", f"hydra.run.dir={new}"]
    assert call("train", *SHORT, *words) == 0
    state, averaged = content(new)["state_dict"], averages(new)
    for name, tensor in wanted.items():
        frozen = name.startswith("net.in_conv.")
        assert torch.equal(state[name], tensor) == torch.equal(averaged[name], tensor) == frozen, name
    frozen = sum(tensor.numel() for name, tensor in wanted.items() if name.startswith("net.in_conv."))
    total = sum(tensor.numel() for tensor in wanted.values())
    assert facts(new)["frozen parameters"] == frozen and facts(new)["parameters"] == total - frozen
    assert call("train", f"resume={new}", "trainer.max_steps=4") == 0
    assert torch.equal(content(new)["state_dict"]["net.in_conv.weight"], wanted["net.in_conv.weight"])


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["net.width=16"], "(net.in_conv.weight is [8, 4, 1, 1] float32 there and [16, 4, 1, 1] float32 in the model)"),
        (["init_from=nowhere"], "init_from=nowhere does not exist"),
        (["init_from=3"], "init_from must be a run, `latest` or a checkpoint, not 3"),
        (["model.freeze=[net.in_cnov.*]"], "matches no weight of the model; did you mean net.in_conv."),
        (["model.freeze=['*']"], "leaves no weights to train"),
        (["model.freeze=net"], "must be a list of names, such as ['net.encoder.*'], not 'net'"),
    ],
)
def test_what_does_not_fit_is_refused_before_there_is_a_run(
    words: list[str], sentence: str, old: Path, tmp_path: Path, refused: Callable[..., str]
) -> None:
    new = tmp_path / "new"
    assert sentence in refused("train", *SHORT, f"init_from={old}", f"hydra.run.dir={new}", *words)
    assert not (new / "config.yaml").exists()


def test_numbered_checkpoints_stay_and_are_measured_in_one_curve(tmp_path: Path, refused: Callable[..., str]) -> None:
    run = tmp_path / "run"
    keep = ["callback.checkpoints.keep_every=2", "callback.checkpoints.keep_last=3", "trainer.max_steps=8"]
    assert call("train", *SHORT, *keep, f"hydra.run.dir={run}") == 0
    assert snapshots(run) == ["step_4", "step_6", "step_8"]
    states = [torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True) for name in ("step_8", "last")]
    assert states[0]["global_step"] == 8
    assert all(torch.equal(states[0]["state_dict"][name], tensor) for name, tensor in states[1]["state_dict"].items())
    measure = ["mode=reconstruction", "n=4", "metric.draws=1", "trainer.accelerator=cpu"]
    assert call("evaluate", f"run={run}", *measure, "checkpoint=all") == 0
    (curve,) = (run / "evaluation").glob("reconstruction_checkpoint_*.json")
    series = json.loads(curve.read_text())["series"]
    assert series["checkpoint"] == [4, 6, 8] and len(set(series["mse_u0"])) == 3
    assert curve.with_suffix(".png").stat().st_size > 0
    assert "give checkpoint=last or checkpoint=best or checkpoint=step_4 or" in refused(
        "sample", f"run={run}", "checkpoint=step_2", "trainer.accelerator=cpu"
    )


def test_a_run_without_numbered_checkpoints_says_how_to_get_some(old: Path, refused: Callable[..., str]) -> None:
    sentence = refused("evaluate", f"run={old}", "mode=reconstruction", "checkpoint=all")
    assert "has no numbered checkpoints; train with callback.checkpoints.keep_every=N." in sentence
    assert "give keep_every, too" in refused("train", *SHORT, "callback.checkpoints.keep_last=2")
