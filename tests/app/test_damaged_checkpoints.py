"""Checkpoints that are damaged, foreign or made to harm: one sentence each, for sampling and for going on."""

import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import call

from heatgen.app.checkpoint import check_training
from heatgen.app.load import restore
from heatgen.app.requests import LoadRequest
from heatgen.check import ConfigError
from heatgen.runtime.directory import read_checkpoint


def change(path: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    state = torch.load(path, weights_only=True)
    torch.save(edit(state), path)


def wider(state: dict[str, Any]) -> dict[str, Any]:
    name = next(name for name, x in state["state_dict"].items() if x.dim() == 4)
    state["state_dict"][name] = torch.zeros(7, 7, 3, 3)
    return state


def short_averages(state: dict[str, Any]) -> dict[str, Any]:
    state["callbacks"]["EMA"]["averages"].pop()
    return state


def reshaped_average(state: dict[str, Any]) -> dict[str, Any]:
    state["callbacks"]["EMA"]["averages"][0] = torch.zeros(3)
    return state


def claimed(state: dict[str, Any]) -> dict[str, Any]:
    name = next(iter(state["state_dict"]))
    state["state_dict"][name] = torch.zeros(1).expand(10**12)
    return state


def nested(_: object) -> dict[str, Any]:
    bomb: list[Any] = [0.0]
    for _ in range(40):
        bomb = [bomb, bomb]
    return {"state_dict": bomb}


DAMAGES: dict[str, Callable[[dict[str, Any]], object]] = {
    "a list": lambda state: [1, 2],
    "a tensor": lambda state: torch.zeros(3),
    "a number": lambda state: 3,
    "an empty dict": lambda state: {},
    "a bare state_dict": lambda state: state["state_dict"],
    "weights that are numbers": lambda state: state | {"state_dict": dict.fromkeys(state["state_dict"], 1.0)},
    "no callbacks": lambda state: {key: value for key, value in state.items() if key != "callbacks"},
    "another model": lambda state: state | {"state_dict": {"weight": torch.zeros(3)}},
    "a wider net": wider,
    "short averages": short_averages,
    "an average of another shape": reshaped_average,
    "tensors larger than the file": claimed,
    "containers that unfold without end": nested,
}
FOR_A_TRAINING: dict[str, Callable[[dict[str, Any]], object]] = {
    "no optimizer": lambda state: {key: value for key, value in state.items() if key != "optimizer_states"},
    "no loops": lambda state: state | {"loops": 3},
    "an optimizer of less": lambda state: state | {"optimizer_states": [{"state": {}, "param_groups": [{"params": [0]}]}]},
    "an optimizer that is text": lambda state: state | {"optimizer_states": ["adam"]},
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_a_damaged_checkpoint_is_told(own_run: Path, damage: str) -> None:
    path = own_run / "checkpoints" / "last.ckpt"
    change(path, DAMAGES[damage])
    with pytest.raises(ConfigError, match=r"last\.ckpt (does not (fit|hold)|is cut short)"):
        restore(LoadRequest(own_run))


def test_what_going_on_needs_beside_the_weights(own_run: Path) -> None:
    path = own_run / "checkpoints" / "last.ckpt"
    whole, model = path.read_bytes(), restore(LoadRequest(own_run)).model
    check_training(read_checkpoint(path), model, path)
    for damage in (*FOR_A_TRAINING, *DAMAGES):
        path.write_bytes(whole)
        change(path, (FOR_A_TRAINING | DAMAGES)[damage])
        with pytest.raises(ConfigError, match=r"last\.ckpt (does not (fit|hold)|is cut short)"):
            check_training(read_checkpoint(path), model, path)


@pytest.mark.parametrize("content", [b"", b"text of no checkpoint", bytes(range(256)) * 40, pickle.dumps({"a": 1})])
def test_bytes_that_are_no_checkpoint(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match="cut short or not a checkpoint"):
        read_checkpoint(path)


def test_a_checkpoint_that_unpacks_to_more_than_it_is_stays_packed(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.ckpt", tmp_path / "packed.ckpt"
    torch.save({"x": torch.zeros(10**6)}, plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for entry in source.infolist():
            target.writestr(entry.filename, source.read(entry))
    with pytest.raises(ConfigError, match="does not hold"):
        read_checkpoint(path)


def test_resume_says_the_same_sentence_as_sample(own_run: Path, capfd: pytest.CaptureFixture[str]) -> None:
    change(own_run / "checkpoints" / "last.ckpt", wider)
    said = []
    for command in (("train", f"resume={own_run}", "trainer.max_steps=13"), ("sample", f"run={own_run}", "n=2")):
        assert call(*command) == 1
        said.append([line for line in capfd.readouterr().err.splitlines() if line.startswith("Error: ")])
    assert said[0] == said[1] and len(said[0]) == 1
