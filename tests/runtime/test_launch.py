"""What is measured at the end of a training, and how many processes a job gets."""

import json
import logging
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from omegaconf import OmegaConf

from heatgen.check import ConfigError
from heatgen.runtime import launch


@pytest.fixture
def commands(monkeypatch):
    """The commands that would be run; the exit code of each is that of `codes`, or 0."""
    seen = SimpleNamespace(words=[], codes=[])

    def run(words):
        seen.words.append(words)
        return SimpleNamespace(returncode=seen.codes.pop(0) if seen.codes else 0)

    monkeypatch.setattr(launch.subprocess, "run", run)
    for name in ("LOCAL_RANK", "RANK", "SLURM_NTASKS", "SLURM_PROCID", launch.OWN_CHILD):
        monkeypatch.delenv(name, raising=False)
    return seen


def config(evaluate):
    return OmegaConf.create({"evaluate": evaluate, "runs_dir": "some runs", "trainer": {"accelerator": "cpu"}})


@pytest.mark.parametrize(
    ("evaluate", "in_sweep", "expected"),
    [
        (None, False, []),
        (None, True, [["mode=forward"], ["mode=memorisation", "n=200"]]),
        ([], True, []),
        (
            ["mode=elbo", "mode=fid n=9 metric.weights='a b.pt'"],
            True,
            [["mode=elbo"], ["mode=fid", "n=9", "metric.weights=a b.pt"]],
        ),
    ],
)
def test_a_finished_run_is_measured_as_it_says_and_in_a_sweep_in_two_ways(evaluate, in_sweep, expected, commands, tmp_path):
    launch.evaluate(tmp_path, config(evaluate), in_sweep)
    for words in commands.words:
        assert words[0] == sys.executable and words[1].endswith("/evaluate.py")
        assert words[2:5] == [f"run='{tmp_path}'", "runs_dir='some runs'", "trainer.accelerator=cpu"]
    assert [words[5:] for words in commands.words] == expected


def test_a_measurement_that_fails_ends_the_job_with_one_sentence(commands, tmp_path):
    commands.codes = [0, 1]
    with pytest.raises(ConfigError, match=f"^evaluate=b failed and says why above; the training is whole, in {tmp_path}.$"):
        launch.evaluate(tmp_path, config(["a", "b", "c"]), False)
    assert len(commands.words) == 2


def test_a_run_of_before_there_was_the_key_is_not_measured(commands, tmp_path):
    cfg = config(None)
    del cfg["evaluate"]
    launch.evaluate(tmp_path, cfg, False)
    assert commands.words == []


@pytest.mark.parametrize(
    ("rank", "ours", "asked", "notes"),
    [("0", False, True, 1), ("1", False, True, 0), ("0", True, True, 0), ("0", False, False, 0)],
)
def test_one_of_several_processes_measures_nothing_and_where_nobody_will_says_so(
    rank, ours, asked, notes, commands, tmp_path, monkeypatch, caplog
):
    monkeypatch.setenv("LOCAL_RANK", rank)
    monkeypatch.setenv("RANK", rank)
    if ours:
        monkeypatch.setenv(launch.OWN_CHILD, "1")
    with caplog.at_level(logging.WARNING, "heatgen"):
        launch.evaluate(tmp_path, config(["mode=elbo"] if asked else None), False)
    assert commands.words == [] and len(caplog.records) == notes
    assert all(f"call evaluate.py run={tmp_path} afterwards" in record.getMessage() for record in caplog.records)


@pytest.mark.parametrize(("devices", "count"), [(1, 1), ("3", 3), ([0, 2], 2), ("auto", 1), (-1, 1)])
def test_the_devices_of_a_cpu_are_processes(devices, count):
    assert launch.count_devices("cpu", devices) == count


@pytest.mark.parametrize("devices", [0, "two", True, None, 1.5, "-2"])
def test_devices_that_are_no_number_are_refused(devices):
    with pytest.raises(ConfigError, match=r"^trainer\.devices must be a number of at least 1, a list or auto"):
        launch.count_devices("cpu", devices)


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local"]], ids=lambda words: words[0])
def test_the_jobs_of_a_sweep_run_in_processes_of_a_launcher_and_are_compared(launcher, tmp_path):
    script = Path(__file__).resolve().parents[2] / "train.py"
    small = ["net=mlp", "model=heat_kernel_score", "trainer.max_steps=2", "evaluate=['mode=forward metric.levels=2']"]
    sweep = ["-m", "data=point", "forward=heat_kernel,variance_exploding", "forward.num_levels=4", *small]
    command = [sys.executable, str(script), *sweep, f"hydra/launcher={launcher[0]}", *launcher[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    rows = json.loads((folder / "comparison.json").read_text())
    assert [(row["forward"], row["steps"]) for row in rows] == [("heat_kernel", 2), ("variance_exploding", 2)]
    assert len(list(folder.glob("*/evaluation/forward_*.json"))) == 2
    assert "train.py -m data=point" in (folder / "command.txt").read_text()
