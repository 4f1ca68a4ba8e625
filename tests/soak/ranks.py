"""Two torchrun agents, and two tasks of SLURM, started 3 s apart: one folder that both know, no phantom beside it."""

import os
import socket
import time
from pathlib import Path

from tests.soak import folders
from tests.soak.frame import SMALL, Trial, last, main, sentence
from tests.soak.jobs import ROOT, Job

WORDS = (*SMALL, "trainer.max_steps=6", "callback.pictures.every=0", "trainer=ddp", "trainer.accelerator=cpu")
APART = 3.0  # seconds


def ranks(trial: Trial) -> None:
    """One of the ways to start, in turn."""
    ways = (torchrun, slurm, torchrun_sweep, slurm_interactive, slurm_refused)
    ways[int(trial.folder.name) % len(ways)](trial)


def free_port() -> int:
    """A port that nobody uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def agents(trial: Trial, *words: str) -> list[Job]:
    """Two agents of torchrun with a process each."""
    where = ["--master_addr=127.0.0.1", f"--master_port={free_port()}", "--nnodes=2", "--nproc_per_node=1"]
    started = []
    for rank in range(2):
        agent = (
            "torch.distributed.run",
            *where,
            f"--node_rank={rank}",
            str(ROOT / "train.py"),
            *words,
            "trainer.num_nodes=2",
        )
        started.append(trial.start(*agent, "trainer.devices=1", real=True, name=f"agent-{rank}"))
        time.sleep(APART * (1 - rank))
    return finish(trial, started)


def tasks(trial: Trial, *words: str) -> list[Job]:
    """Two tasks of a job of SLURM on two nodes, as srun starts them."""
    common = {
        "SLURM_JOB_ID": "4711",
        "SLURM_JOB_NAME": "job",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_NNODES": "2",
        "SLURM_JOB_NODELIST": "127.0.0.1",
        "SLURM_NODELIST": "127.0.0.1",
        "SLURM_LOCALID": "0",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_port()),
    }
    started = []
    for rank in range(2):
        env = common | {"SLURM_PROCID": str(rank), "SLURM_NODEID": str(rank)}
        words_of = ("train", *words, "trainer.num_nodes=2", "trainer.devices=1")
        started.append(trial.start(*words_of, real=True, name=f"task-{rank}", env=env))
        time.sleep(APART * (1 - rank))
    return finish(trial, started)


def finish(trial: Trial, started: list[Job], code: int = 0) -> list[Job]:
    """Wait for jobs that belong together."""
    for job in started:
        if job.wait(180) is None:
            trial.fault(f"hang: {job.log}: {last(job.output())}")
            job.end()
        elif "Traceback" in job.output():
            trial.fault(f"traceback: {job.log}")
    return started


def good(trial: Trial, started: list[Job]) -> None:
    """A fault for each job that failed."""
    for job in started:
        if job.code != 0:
            trial.fault(f"exit code {job.code}: {job.log}: {last(job.output())}")


def one_folder(trial: Trial, place: Path, number: int = 1) -> None:
    """A fault unless there are so many folders, and each is a whole run."""
    found = sorted(path for path in place.glob("*") if path.is_dir())
    if len(found) != number:
        trial.fault(f"{[path.name for path in found]} in {place} are not {number}")
    for run in found:
        if not (run / "checkpoints" / "last.ckpt").exists() or not (run / "config.yaml").exists():
            trial.fault(f"phantom: {run} holds {[path.name for path in run.iterdir()]}")
    for line in folders.halves(place):
        trial.fault(line)


def torchrun(trial: Trial) -> None:
    """Two agents train one run."""
    good(trial, agents(trial, *WORDS))
    one_folder(trial, trial.folder / "runs" / "ihd-heat-digits")
    trial.count("two agents")


def slurm(trial: Trial) -> None:
    """Two tasks train one run."""
    good(trial, tasks(trial, *WORDS))
    one_folder(trial, trial.folder / "runs" / "ihd-heat-digits")
    trial.count("two tasks")


def torchrun_sweep(trial: Trial) -> None:
    """Two agents do one sweep of two jobs, with one table."""
    good(trial, agents(trial, "-m", *WORDS, "seed=0,1", "evaluate=[]"))
    sweeps = trial.folder / "runs" / "sweeps"
    found = sorted(path for path in sweeps.glob("*") if path.is_dir())
    if len(found) != 1:
        trial.fault(f"{[path.name for path in found]} are not one sweep")
    for sweep in found:
        one_folder(trial, sweep, 2)
        rows = folders.read(sweep / "comparison.json") if (sweep / "comparison.json").exists() else []
        if not isinstance(rows, list) or not rows or "2" not in str(rows):
            trial.fault(f"{sweep}/comparison.json is {str(rows)[:200]}")
    trial.count("sweep by two agents")


def slurm_interactive(trial: Trial) -> None:
    """A shell that SLURM gave for two tasks: the two processes are started by heatgen."""
    env = {"SLURM_JOB_ID": "4711", "SLURM_JOB_NAME": "bash", "SLURM_NTASKS": "2", "SLURM_NNODES": "1"}
    env |= {"SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_PROCID": "0"}
    good(trial, finish(trial, [trial.start("train", *WORDS, "trainer.devices=2", real=True, env=env)]))
    one_folder(trial, trial.folder / "runs" / "ihd-heat-digits")
    trial.count("interactive shell")


def slurm_refused(trial: Trial) -> None:
    """What is refused ends both tasks in seconds, and leaves nothing."""
    for job in tasks(trial, *WORDS, "forward.sigma=-1"):
        if job.code != 1:
            trial.fault(f"exit code {job.code}: {job.log}: {last(job.output())}")
        elif job is trial.started[0] and (wrong := sentence(job)):
            trial.fault(f"{wrong}: {job.log}")
    if left := [path for path in (trial.folder / "runs").rglob("config.yaml")]:
        trial.fault(f"phantom: {left}")
    trial.count("two tasks, refused")


if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    main("ranks", __doc__, ranks, count=5)
