"""Options of lightning.Trainer: each acts or is refused in one sentence, whichever verb is given it."""

import csv
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from conftest import call

from heatgen.app.trainer_options import INSTEAD, check_options
from heatgen.check import ConfigError
from heatgen.data.stream import StreamSteps
from heatgen.runtime.launch import DeviceRequest, placed

OWN: dict[str, Any] = {"strategy": "auto"}


def test_the_table_names_options_of_lightning() -> None:
    assert set(INSTEAD) <= set(inspect.signature(L.Trainer.__init__).parameters)


@pytest.mark.parametrize("key", INSTEAD)
def test_an_option_that_cannot_act_is_refused_with_what_to_use(key: str) -> None:
    default = inspect.signature(L.Trainer.__init__).parameters[key].default
    check_options(OWN | {key: default})
    with pytest.raises(ConfigError, match=rf"^trainer\.{key}=7 cannot act: .*\.$"):
        check_options(OWN | {key: 7})


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        ({"strategy": "ddp_spwan"}, r"trainer\.strategy must be one of auto, ddp, .*, not 'ddp_spwan'; did you mean"),
        ({"strategy": "ddp_spawn"}, r"trainer\.strategy=ddp_spawn starts processes itself, .*; use trainer\.strategy=ddp\."),
        (
            {"strategy": "fsdp"},
            r"trainer\.strategy=fsdp shares out one network over devices, .*; use trainer\.strategy=ddp\.",
        ),
        ({"overfit_batchs": 1}, r"trainer\.overfit_batchs is no option of .*; did you mean trainer\.overfit_batches\?"),
        ({"overfit_batches": 0.5}, r"trainer\.overfit_batches must be a whole number"),
        ({"limit_val_batches": -1}, r"trainer\.limit_val_batches must be a number of batches"),
        ({"profiler": "fast"}, r"trainer\.profiler must be one of simple, advanced, pytorch"),
        ({"detect_anomaly": "yes"}, r"trainer\.detect_anomaly must be true or false"),
    ],
)
def test_a_value_that_is_none_is_refused(wrong: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=f"^{sentence}"):
        check_options(OWN | wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        {"accelerator": "abc"},
        {"accelerator": -1000},
        {"precision": "16-true"},
        {"precision": "bf16-true"},
        {"precision": ["a", None]},
        {"num_nodes": 0},
        {"devices": [0, 0]},
        {"devices": []},
        {"devices": ["a"]},
    ],
)
def test_devices_that_are_none_are_refused_for_every_verb(wrong: dict[str, Any]) -> None:
    (key,) = wrong
    with pytest.raises(ConfigError, match=rf"^trainer\.{key}.* must be .*[^.?][.?]$"):
        DeviceRequest(**wrong)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence_for_every_verb() -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.accelerator=gpu finds no CUDA GPU here; use trainer=cpu\.$"):
        DeviceRequest("gpu")


@pytest.mark.parametrize(
    ("devices", "found"),
    [([1], [1]), ([0, 1], [0, 1]), ("0,1", [0, 1]), ("1,", [1]), ("2", 2), ("auto", 3), (-1, 3), ("-1", 3)],
)
def test_devices_are_a_number_of_gpus_or_a_list_of_them(monkeypatch, devices: Any, found: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    request = DeviceRequest("gpu", devices)
    assert placed("gpu", request.devices) == ("gpu", found)
    assert request.count == (found if isinstance(found, int) else len(found))
    for wrong in (4, [0, 3], "3,"):
        with pytest.raises(
            ConfigError, match=r"^trainer\.devices=.* is more than this machine has: 3 GPUs, numbers 0 to 2\.$"
        ):
            DeviceRequest("auto", wrong)


def test_a_launcher_that_started_other_than_asked_is_one_sentence(monkeypatch) -> None:
    for key, value in {"TORCHELASTIC_RUN_ID": "1", "WORLD_SIZE": "4", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(key, value)
    DeviceRequest("cpu", 2, num_nodes=2)
    with pytest.raises(ConfigError, match=r"^4 processes were started, .*=1 are 1; give trainer\.devices=4, or"):
        DeviceRequest("cpu", 1)


def test_a_cpu_has_no_more_processes_than_it_can_have() -> None:
    with pytest.raises(ConfigError, match=r"^trainer\.devices=9999 is 9999 processes on a CPU; give at most \d+\.$"):
        DeviceRequest("cpu", 9999)


def test_devices_of_a_cpu_are_counted() -> None:
    assert [placed("cpu", devices) for devices in ([0], [0, 1], "auto", 3)] == [("cpu", n) for n in (1, 2, 1, 3)]


def test_overfit_batches_are_the_first_ones_again_and_again() -> None:
    steps = list(StreamSteps(4, lambda: (0, 0), 5, rank=1, world=2, repeated=2))
    assert steps == [[1, 3], [5, 7], [1, 3], [5, 7], [1, 3]]


SMALL = ["model=supervised", "net=fno", "data=grf", "data.resolution=8", "data.train_size=16", "data.val_size=8"]
SMALL += ["data.test_size=8", "data.batch_size=8", "net.width=8", "net.modes=3", "forward.num_levels=5", "evaluate=[]"]
SMALL += ["trainer.accelerator=cpu"]


def test_one_batch_comes_again_and_again_and_its_profile_is_written(tmp_path: Path) -> None:
    acting = ["+trainer.profiler=simple", "+trainer.overfit_batches=1", "trainer.max_steps=3", "trainer.log_every_n_steps=1"]
    assert call("train", *SMALL, *acting, "callback=checkpoints", "optimizer.lr=0", f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert "run_training_batch" in (tmp_path / "run" / "fit-profile.txt").read_text()
    losses = [row["train/loss"] for row in csv.DictReader((tmp_path / "run" / "metrics.csv").open()) if row["train/loss"]]
    assert len(losses) >= 3 and len(set(losses)) == 1


def test_a_time_limit_ends_with_a_validation_and_checkpoints(tmp_path: Path) -> None:
    words = ['+trainer.max_time="00:00:00:01"', "trainer.max_steps=1000000", "callback=checkpoints"]
    assert call("train", *SMALL, *words, f"hydra.run.dir={tmp_path / 'run'}") == 0
    assert {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}


def test_debug_fast_goes_once_through_everything_where_latest_does_not_look(
    tmp_path: Path, refused: Callable[..., str]
) -> None:
    assert call("train", *SMALL, "debug=fast") == 0
    (run,) = (tmp_path / "runs" / "debug").glob("*/*")
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    assert (run / "samples" / "step_000001.png").is_file()
    assert "There is no run under" in refused("sample", "trainer.accelerator=cpu")
