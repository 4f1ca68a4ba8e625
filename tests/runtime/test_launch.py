"""How many processes a job gets, and the processes that a launcher starts."""

import json
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest
from torch.distributed import TCPStore

from heatgen.check import ConfigError
from heatgen.runtime import launch, ranks


@pytest.mark.parametrize(("devices", "count"), [(1, 1), ("3", 3), ([0, 2], 2), ("auto", 1), (-1, 1)])
def test_the_devices_of_a_cpu_are_processes(devices, count):
    assert launch.count_devices("cpu", devices) == count


@pytest.mark.parametrize("devices", [0, "two", True, None, 1.5, "-2"])
def test_devices_that_are_no_number_are_refused(devices):
    with pytest.raises(ConfigError, match=r"^trainer\.devices must be a number of at least 1, a list or auto"):
        launch.count_devices("cpu", devices)


def test_a_child_is_no_task_of_the_launcher_that_started_its_parent(monkeypatch):
    for key in ("SLURM_NTASKS", "SLURM_PROCID", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_USE_AGENT_STORE", "PMI_SIZE"):
        monkeypatch.setenv(key, "1")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    found = {key for key in launch.environment() if key.startswith(("SLURM", "TORCHEL", "PMI"))}
    assert found == {"SLURM_JOB_ID"}


def test_tasks_of_slurm_that_srun_has_not_started_are_one_sentence(monkeypatch):
    sentence = r"^SLURM has 2 tasks for this job, and srun has not started them; put srun before .* trainer\.devices=2\.$"
    monkeypatch.setenv("SLURM_NTASKS", "2")
    with pytest.raises(ConfigError, match=sentence):
        ranks.world()
    monkeypatch.setenv("SLURM_NTASKS_PER_NODE", "2")
    monkeypatch.setenv("SLURM_PROCID", "0")  # as in the script of a job, and in its first task
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setattr(ranks, "BRIEF", timedelta(seconds=1))
    monkeypatch.setattr(ranks, "said", [0])
    with launch.free_port() as port:
        monkeypatch.setenv("MASTER_PORT", str(port))
        ranks.store.cache_clear()
        with pytest.raises(ConfigError, match=sentence):
            ranks.exchange("")
    ranks.store.cache_clear()
    monkeypatch.setenv("SLURM_STEP_ID", "0")
    assert not ranks.is_doubtful()


def test_a_port_is_kept_for_the_processes_that_meet_there():
    with launch.free_port() as port:
        with socket.socket() as other, pytest.raises(OSError, match="in use"):
            other.bind(("127.0.0.1", port))
        store = TCPStore("127.0.0.1", port, 1, True, timeout=timedelta(seconds=10), multi_tenant=True)
        store.set("word", "heard")
        client = TCPStore("127.0.0.1", port, 1, False, timeout=timedelta(seconds=10))
        assert client.get("word") == b"heard"


@pytest.mark.slow
@pytest.mark.parametrize("launcher", [["joblib", "hydra.launcher.n_jobs=2"], ["submitit_local"]], ids=lambda words: words[0])
def test_the_jobs_of_a_sweep_run_in_processes_of_a_launcher_and_are_compared(launcher, tmp_path):
    script = Path(__file__).resolve().parents[2] / "train.py"
    measured = "'mode=forward metric.levels=2'" if launcher[0] == "joblib" else ""
    small = ["net=mlp", "model=heat_kernel_score", "trainer.max_steps=2", f"evaluate=[{measured}]"]
    sweep = ["-m", "data=point", "forward=heat_kernel,variance_exploding", "forward.num_levels=4", *small]
    command = [sys.executable, str(script), *sweep, f"hydra/launcher={launcher[0]}", *launcher[1:]]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    (folder,) = (tmp_path / "runs" / "sweeps").iterdir()
    rows = json.loads((folder / "comparison.json").read_text())
    assert [(row["forward"], row["steps"]) for row in rows] == [("heat_kernel", 2), ("variance_exploding", 2)]
    assert len(list(folder.glob("*/evaluation/forward_*.json"))) == (2 if measured else 0)
    assert "train.py -m data=point" in (folder / "command.txt").read_text()
