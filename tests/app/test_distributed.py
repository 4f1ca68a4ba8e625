"""Training, sampling and both kinds of evaluation in two processes give what one process gives."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from collectives import FIRST, LAST
from conftest import ROOT, SMALL, call, call_together
from PIL import Image
from torch import nn

TWO = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu"]

EQUAL = 1e-6  # relative, of one checkpoint's samples and what is measured of it; training itself makes rounding grow

ONE_TASK = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "job", "SLURM_NTASKS": "1", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}

pytestmark = pytest.mark.slow


def run(script: str, *arguments: str, **variables: str) -> str:
    """Run a command in a process of its own; what it prints."""
    command = [sys.executable, str(ROOT / f"{script}.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400, env=os.environ | variables)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_a_mistake_gets_one_sentence_from_all_processes_together(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "train.py"), *TWO, *SMALL, "forward.sigma=-1", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["Error: forward.sigma must be a number of at least 0, not -1."]


def test_jobs_of_a_sweep_have_two_processes_each_in_one_folder_and_one_that_fails_does_not_stop_the_others(
    tmp_path: Path,
) -> None:
    command = [sys.executable, str(ROOT / "train.py"), "-m", *TWO, *SMALL, "forward.sigma=-1,0.01", "evaluate=[]"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1 and "forward.sigma must be a number" in done.stderr
    (sweep,) = (tmp_path / "runs" / "sweeps").iterdir()
    (last,) = sweep.glob("*/checkpoints/last.ckpt")
    assert last.parents[1].name == "1-ihd-heat-digits" and (last.parents[1] / "process_1.log").is_file()


def newest(folder: Path) -> dict:
    return json.loads(max((folder / "evaluation").glob("*.json"), key=lambda p: p.stat().st_mtime_ns).read_text())


def test_two_processes_train_the_same_model_and_exchange_nothing_but_gradients(tmp_path: Path) -> None:
    folder, one = tmp_path / "two", tmp_path / "one"
    words = [*[s for s in SMALL if "dropout" not in s], "data.val_size=67"]  # which are no equal shares
    words += ["trainer.val_check_interval=12", "callback.checkpoints.every=12"]
    counts = f"+callback.collectives={{_target_: collectives.Collectives, path: {tmp_path / 'counts'}}}"
    path = os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")])
    words = [*words, "trainer.log_every_n_steps=50"]
    run("train", *TWO, *words, counts, f"hydra.run.dir={folder}", PYTHONPATH=path, **ONE_TASK)
    for rank in range(2):
        assert json.loads((tmp_path / f"counts_{rank}.json").read_text()) == {"gloo:all_reduce": LAST - FIRST + 1}
    assert call("train", *words, f"hydra.run.dir={one}") == 0
    assert newest(one)["values"]["val_loss"] == pytest.approx(newest(folder)["values"]["val_loss"], rel=1e-6)
    weights = [torch.load(f / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"] for f in (one, folder)]
    assert max((weights[0][k] - weights[1][k]).abs().max().item() for k in weights[0]) < 1e-5
    one_picture, two_pictures = (pixels(f / "samples" / "step_000012.png") for f in (one, folder))
    assert (one_picture - two_pictures).abs().max() <= 1  # each drew two of its four images


@pytest.mark.parametrize(("rank", "number"), [(0, signal.SIGTERM), (1, signal.SIGUSR1)])
def test_a_signal_to_one_process_stops_both_behind_one_step_and_the_run_goes_on(
    rank: int, number: int, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = f"hydra.run.dir={tmp_path / 'run'}"
    words = [*SMALL, "callback.checkpoints.every=100", "trainer.val_check_interval=100", "callback.pictures.every=0", folder]
    hit = f"+callback.hit={{_target_: collectives.Hit, rank: {rank}, step: 5, number: {int(number)}}}"
    assert call_together("train", *words, hit) == [128 + number] * 2
    checkpoint = torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == 6  # the step behind the one that the signal came in
    assert f"stopped by {number.name} at step 6; go on with" in capfd.readouterr().out
    assert call_together("train", f"resume={tmp_path / 'run'}", "trust=true") == [0, 0]
    assert newest(tmp_path / "run")["values"]["steps"] == 12


def pixels(path: Path) -> torch.Tensor:
    with Image.open(path) as image:
        return torch.from_numpy(np.asarray(image).astype(int))


def test_two_processes_draw_the_same_samples_of_a_run_and_measure_the_same(own_run: Path, tmp_path: Path) -> None:
    def own(verb: str, devices: int, *words: str) -> bool:
        return call(verb, *words) == 0 if devices == 1 else call_together(verb, *words) == [0, 0]

    samples = []
    for devices in (1, 2):
        assert own("sample", devices, f"run={own_run}", "n=5")
        (path,) = own_run.glob("samples/*/samples.pt")
        samples.append(torch.load(path, weights_only=True)["samples"])
        path.unlink()
    assert samples[0].shape == (5, 1, 8, 8)
    # not the same bits: oneDNN multiplies the matrices of 2 and 3 samples in another order than those of 5
    assert (samples[0] - samples[1]).abs().max() < EQUAL * samples[0].abs().max()

    features = tmp_path / "features.pt"
    torch.jit.script(nn.Sequential(nn.Conv2d(1, 4, 3, stride=2), nn.ReLU(), nn.Flatten(), nn.Linear(36, 6))).save(features)
    for mode in (["mode=elbo", "n=21"], ["mode=suite", "n=21", f"metric.extractor={features}"]):
        values = []
        for devices in (1, 2):
            assert own("evaluate", devices, f"run={own_run}", *mode)
            values.append(newest(own_run)["values"])
        assert values[0] == pytest.approx(values[1], rel=EQUAL)


@pytest.mark.skipif("HEATGEN_INCEPTION" not in os.environ, reason="needs the Inception file (HEATGEN_INCEPTION)")
def test_two_processes_agree_on_what_is_kept_when_a_split_is_measured_against_itself(tmp_path: Path) -> None:
    same = ["metric.source=val", "metric.reference=val", "n=4", "metric.reference_n=4"]
    assert call_together("evaluate", "run=null", "data=digits", "mode=fid", *same) == [0, 0]
    assert newest(tmp_path / "runs" / "data-digits")["values"]["fid"] == pytest.approx(0, abs=1e-6)
