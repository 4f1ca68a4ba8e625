"""A training that is killed and resumed ends with the same bits as one that is not."""

import signal
import time
from pathlib import Path

import pytest
import torch
from conftest import SMALL, call

from heatgen.callback.pictures import Pictures
from tests.soak.jobs import Job, fork


def same_state(a: Path, b: Path) -> bool:
    """Whether two runs' last checkpoints hold the same weights, averages and optimizer state, bit for bit."""
    one, two = (torch.load(run / "checkpoints" / "last.ckpt", weights_only=True) for run in (a, b))
    pairs = [(one["state_dict"][k], two["state_dict"][k]) for k in one["state_dict"]]
    pairs += zip(one["callbacks"]["EMA"]["averages"], two["callbacks"]["EMA"]["averages"], strict=True)
    for i, state in one["optimizer_states"][0]["state"].items():
        pairs += [(state[k], two["optimizer_states"][0]["state"][i][k]) for k in state]
    return one["global_step"] == two["global_step"] and all(torch.equal(x, y) for x, y in pairs)


@pytest.mark.slow
@pytest.mark.parametrize("step", [5, 8, 11])
def test_a_training_that_breaks_at_any_step_ends_with_the_same_bits(
    small_run: Path, tmp_path: Path, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(self: Pictures, trainer, *_) -> None:
        if trainer.global_step == step:
            raise RuntimeError("the power went out")

    folder = tmp_path / "broken"
    with monkeypatch.context() as patch:
        patch.setattr(Pictures, "on_train_batch_end", breaks)
        with pytest.raises(RuntimeError, match="power"):
            call("train", *SMALL, f"hydra.run.dir={folder}")
    assert not same_state(small_run, folder)
    assert call("train", f"resume={folder}") == 0
    assert same_state(small_run, folder)


def saving(folder: Path, *words: str) -> Job:
    """A training in a process of its own that has saved once."""
    job = fork(("train", *SMALL, *words, f"hydra.run.dir={folder}"), folder.with_suffix(".log"))
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    return job


@pytest.mark.slow
def test_a_training_that_is_killed_ends_with_the_same_bits(small_run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    job = saving(folder)
    job.send(signal.SIGKILL)
    assert job.wait(60) == 128 + signal.SIGKILL
    assert call("train", f"resume={folder}") == 0
    assert same_state(small_run, folder)


@pytest.mark.slow
def test_a_resumed_training_can_be_longer_and_erases_no_metrics(own_run: Path) -> None:
    before = (own_run / "metrics.csv").read_text()
    assert call("train", f"resume={own_run}", "trainer.max_steps=16") == 0
    assert (own_run / "metrics.csv").read_text().startswith(before)
    assert torch.load(own_run / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 16


@pytest.mark.slow
def test_gradients_that_are_added_up_resume_too(tmp_path: Path) -> None:
    options = [*SMALL, "trainer.accumulate_grad_batches=2", "data.batch_size=32", "trainer.max_steps=6"]
    one, two = tmp_path / "one", tmp_path / "two"
    assert call("train", *options, f"hydra.run.dir={one}") == 0
    assert call("train", *options, "trainer.max_steps=3", f"hydra.run.dir={two}") == 0
    assert call("train", f"resume={two}", "trainer.max_steps=6") == 0
    assert same_state(one, two)


@pytest.mark.slow
def test_sigterm_saves_and_ends_with_its_own_exit_code(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    job = saving(folder, "trainer.max_steps=100000")
    step = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"]
    job.send(signal.SIGTERM)
    assert job.wait(60) == 128 + signal.SIGTERM
    assert torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] >= step
