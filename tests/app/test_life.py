"""The life of a run: where it writes, who may, and how it goes on."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import ROOT, SMALL, call

from heatgen.app import sweep
from heatgen.callback.pictures import Pictures
from heatgen.check import ConfigError
from heatgen.runtime import ranks
from tests.soak.jobs import fork

QUICK = [*SMALL, "trainer.max_steps=2", "callback.pictures.every=0"]
LOCKED = "import sys, time; from pathlib import Path; from heatgen.runtime import claim\n"
LOCKED += "with claim.lock(Path(sys.argv[1])): print('', flush=True); time.sleep(60)"


def content(folder: Path) -> dict[str, bytes]:
    """Every file in a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def state(run: Path) -> dict[str, torch.Tensor]:
    weights: dict[str, torch.Tensor] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    return weights


def same(one: Path, two: Path) -> bool:
    """Whether two runs have the same weights, bit for bit."""
    a, b = state(one), state(two)
    return all(torch.equal(a[name], b[name]) for name in a)


def test_a_config_that_is_only_shown_makes_no_folder(tmp_path: Path) -> None:
    assert call("train", "--cfg", "job") == 0 == call("train", "--help")
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("word", ["forward.sigma=-1", "trainer.precision=half", "trainer.val_check_interval=0.5"])
def test_a_start_that_fails_leaves_nothing(refused, tmp_path: Path, word: str) -> None:
    refused("train", *SMALL, word)
    assert not [path for path in (tmp_path / "runs").rglob("*") if path.parent.name != "runs"]
    refused("train", *SMALL, word, f"hydra.run.dir={tmp_path / 'given'}")
    assert not (tmp_path / "given").exists()


@pytest.mark.slow
@pytest.mark.parametrize("words", [["trainer.precision=half"], ["net.model_channels=16", "trainer.max_steps=16"]])
def test_a_resume_that_fails_leaves_the_run_as_it_was(refused, own_run: Path, words: list[str]) -> None:
    before = content(own_run)
    refused("train", f"resume={own_run}", *words)
    assert content(own_run) == before


def test_a_folder_that_is_given_goes_on_and_is_kept_to_its_own_words(refused, own_run: Path, capfd) -> None:
    given = f"hydra.run.dir={own_run}"
    before = len(list((own_run / "evaluation").iterdir()))
    assert call("train", *SMALL, given) == 0
    assert "has done all its 12 steps" in capfd.readouterr().out
    assert len(list((own_run / "evaluation").iterdir())) == before
    assert "holds a run without seed, this one is with seed=3" in refused("train", *SMALL, given, "seed=3")
    assert "resume=auto goes on with what is in a folder" in refused("train", *SMALL, "resume=auto")


def test_a_run_that_is_finished_refuses_what_cannot_act(refused, own_run: Path) -> None:
    assert "so optimizer.lr=1 cannot act" in refused("train", f"resume={own_run}", "optimizer.lr=1")


def test_a_run_that_is_being_trained_is_not_resumed(refused, own_run: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", LOCKED, str(own_run)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    try:
        said = refused("train", f"resume={own_run}", "trainer.max_steps=16")
        assert f"is being trained by process {process.pid} on {socket.gethostname()} since" in said
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(small_run: Path, own_run: Path, capfd) -> None:
    shutil.rmtree(own_run / "checkpoints")
    shutil.rmtree(own_run / "evaluation")
    assert call("train", f"resume={own_run}") == 0
    assert "has no checkpoint yet, so it starts again" in capfd.readouterr().out
    assert same(small_run, own_run)


def test_numbers_of_processes_are_numbers(refused, monkeypatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "abc")
    assert "LOCAL_RANK=abc in the environment is no number" in refused("train", *QUICK)


@pytest.mark.slow
def test_two_starts_in_one_instant_are_two_runs(tmp_path: Path) -> None:
    started = [fork(("train", *QUICK, f"seed={seed}"), tmp_path / f"{seed}.log") for seed in range(2)]
    assert [job.wait(200) for job in started] == [0, 0]
    runs = sorted((tmp_path / "runs" / "ihd-heat-digits").iterdir())
    assert len(runs) == 2 and not same(*runs)


def table(folder: Path) -> list[dict[str, object]]:
    """The comparison of a sweep, but for seconds."""
    rows = json.loads((folder / "comparison.json").read_text())
    return [{key: value for key, value in row.items() if "seconds" not in key} for row in rows]


@pytest.mark.slow
def test_a_sweep_that_broke_off_goes_on_to_the_same_table(tmp_path: Path, monkeypatch, refused) -> None:
    words = ["-m", *SMALL, "forward=heat,identity", "evaluate=[]"]

    def breaks(self: Pictures, trainer, *_) -> None:
        if trainer.global_step == 6 and "identity" in str(trainer.default_root_dir):
            raise RuntimeError("the power went out")

    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert call("train", *words, f"hydra.sweep.dir={whole}") == 0
    with monkeypatch.context() as patch:
        patch.setattr(Pictures, "on_train_batch_end", breaks)
        with pytest.raises(RuntimeError, match="power"):
            call("train", *words, f"hydra.sweep.dir={broken}")
    assert "is a sweep; go on with it: python train.py -m resume=" in refused("train", f"resume={broken}")
    done = content(broken / "0-ihd-heat-digits")
    assert call("train", "-m", f"resume={broken}") == 0
    assert table(broken) == table(whole)
    assert {key: value for key, value in content(broken / "0-ihd-heat-digits").items() if key != "train.log"} == {
        key: value for key, value in done.items() if key != "train.log"
    }
    assert same(whole / "1-ihd-identity-digits", broken / "1-ihd-identity-digits")


@pytest.mark.slow
def test_jobs_of_a_sweep_that_share_a_folder_do_not_mix(tmp_path: Path, capfd) -> None:
    words = [*QUICK, "optimizer.lr=0.1,0.2", "evaluate=[]", "hydra.sweep.subdir=same"]
    assert call("train", "-m", *words) == 1
    assert "put ${hydra:job.num} into hydra.sweep.subdir" in capfd.readouterr().err


def test_somebody_elses_sweep_runs_no_code(tmp_path: Path, refused) -> None:
    for word in (
        "net._target_=os.system",
        "hydra.launcher.setup=[id]",
        "--config-dir=/tmp",
        "+x=${oc.env:HOME}${hydra:job}",
    ):
        (tmp_path / "sweep.json").write_text(json.dumps({"arguments": ["-m", word], "again": []}))
        assert "which may run code" in refused("train", "-m", f"resume={tmp_path}")
    (tmp_path / "sweep.json").write_text("[[[[")
    assert "sweep.json cannot be read" in refused("train", "-m", f"resume={tmp_path}")


def test_what_is_typed_besides_replaces_what_a_sweep_began_with(tmp_path: Path) -> None:
    words = ["-m", "seed=0,1", "trainer.max_steps=4", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    (tmp_path / "sweep.json").write_text(json.dumps({"arguments": words, "again": []}))
    found = sweep.arguments(["-m", f"resume={tmp_path}", "trainer.max_steps=8", "publish=x"])
    kept = ["-m", "seed=0,1", "trainer.max_steps=8", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2", "publish=x"]
    assert found == [*kept, f'hydra.sweep.dir="{tmp_path}"']
    assert "seed=0,1,2" in sweep.arguments(["-m", f"resume={tmp_path}", "seed=0,1,2", "hydra/launcher=basic"])
    (tmp_path / "sweep.json").write_text(json.dumps({"arguments": [*words, "trainer.max_steps=6"], "again": []}))
    found = sweep.arguments(["-m", f"resume={tmp_path}", "trainer.max_steps=8"])
    assert "trainer.max_steps=8" in found and not {"trainer.max_steps=4", "trainer.max_steps=6"} & set(found)
    with pytest.raises(ConfigError, match="is not the folder of a sweep"):
        sweep.arguments(["-m", f"resume={tmp_path / 'nowhere'}"])


@pytest.mark.parametrize(
    "word",
    [
        "debug=fast",
        "optimizer.lr=1",
        "+net.x=1",
        "~callback",
        "trainer._target_=x",
        "trainer.max_steps=4,8",
        "hydra.sweep.subdir=x",
    ],
)
def test_what_the_jobs_of_a_sweep_cannot_follow_is_refused_before_it_is_noted(tmp_path: Path, refused, word: str) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps({"arguments": ["-m", "seed=0,1", "trainer.max_steps=4"], "again": []}))
    before = content(tmp_path)
    assert f"remove {word}" in (said := refused("train", "-m", f"resume={tmp_path}", word)) or f"with {word}" in said
    assert content(tmp_path) == before


def test_a_sweep_in_a_folder_that_is_given_keeps_what_it_began_with(tmp_path: Path, refused) -> None:
    (tmp_path / "sweep.json").write_text(json.dumps({"arguments": ["-m", "seed=0,1"], "again": []}))
    said = refused("train", "-m", "seed=0,1", "optimizer.lr=1", f"hydra.sweep.dir={tmp_path}")
    assert "keeps its jobs' own optimizer.lr; remove optimizer.lr=1" in said
    assert "optimizer" not in (tmp_path / "sweep.json").read_text() and not (tmp_path / "multirun.yaml").exists()


SLURM = {"SLURM_JOB_ID": "4711", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "1", "SLURM_NNODES": "2"}
SLURM |= {"SLURM_LOCALID": "0", "SLURM_NODELIST": "127.0.0.1", "GLOO_SOCKET_IFNAME": "lo", "MASTER_ADDR": "127.0.0.1"}


@pytest.mark.parametrize("name", ["bash", "interactive"])
def test_a_shell_that_slurm_gave_is_one_process_which_starts_the_others(monkeypatch, name: str) -> None:
    for key, value in (SLURM | {"SLURM_PROCID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NAME": "job"}).items():
        monkeypatch.setenv(key, value)
    assert ranks.is_child() and ranks.world() == 2
    monkeypatch.setenv("SLURM_JOB_NAME", name)
    assert not ranks.is_child() and (ranks.rank(), ranks.world()) == (0, 1)


@pytest.mark.slow
@pytest.mark.parametrize("word", ["seed=0", "forward.sigma=-1"])
def test_two_tasks_of_slurm_have_one_folder_or_one_refusal(tmp_path: Path, word: str) -> None:
    command = ("train", *QUICK, "trainer.accelerator=cpu", "trainer.num_nodes=2", word)
    started = []
    port = {"MASTER_PORT": str(20000 + os.getpid() % 9000), "SLURM_JOB_NAME": "job"}
    for rank in range(2):
        env = {**SLURM, **port, "SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)}
        started.append(fork(command, tmp_path / f"{rank}.log", env))
        time.sleep(2 * (1 - rank))
    codes = [job.wait(200) for job in started]
    said = [[line for line in job.output().splitlines() if "Error" in line] for job in started]
    found = [path.parent for path in (tmp_path / "runs").rglob("config.yaml")]
    if word == "seed=0":
        assert codes == [0, 0], said
        assert found == list((tmp_path / "runs" / "ihd-heat-digits").iterdir())
    else:
        assert codes == [1, 1] and found == []
        assert said == [["Error: forward.sigma must be a number of at least 0, not -1."]] * 2


@pytest.mark.parametrize(
    "word", ["name=../a,b", "name=a,'../b'", "experiment_name=x,/tmp/y", "data_name=a,..", "++publish=x,y"]
)
def test_a_swept_name_that_cannot_be_is_refused_before_anything_is_written(tmp_path: Path, refused, word: str) -> None:
    said = refused("train", "-m", word)
    assert word.lstrip("+").partition("=")[0] in said
    assert not [path for path in (tmp_path / "runs").rglob("*")]


@pytest.mark.slow
def test_a_sweep_of_joblibs_ends_at_once_and_says_each_mistake_once(tmp_path: Path) -> None:
    words = ["-m", *QUICK, "evaluate=[]", "data.num_workers=1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    command = [sys.executable, str(ROOT / "train.py"), *words, "forward.sigma=-1,2.0"]
    done = subprocess.run([*command], capture_output=True, text=True, timeout=200)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and said.count("Error: ") == 1 and "Traceback" not in said, said
    assert "trained 2 steps" in said and said.count("failed: forward.sigma must be a number of at least 0") == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", [("evaluate", "variant=../a,b"), ("evaluate", "nonsense=1,2"), ("sample", "n=-1,-2")])
def test_a_sweep_of_measurements_or_samplings_that_fails_leaves_nothing(
    tmp_path: Path, capfd, words: tuple[str, ...]
) -> None:
    assert call(words[0], "-m", *words[1:], "run=latest") == 1 and "Error: " in capfd.readouterr().err
    assert not list((tmp_path / "runs").glob("sweeps/*"))
