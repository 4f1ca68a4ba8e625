"""kill -9 at random moments: nothing is lost, no process is left, no file is half, and what goes on ends with the same bits.

Trainings (while a checkpoint is being written, or anywhere), samplings, evaluations, the generator of fields, the
classifier, sweeps, sweeps under joblib, two processes; the parent, a child, or all of them at once.
"""

import json
import shutil
import time
from pathlib import Path
from signal import SIGKILL

from tests.soak import folders
from tests.soak.frame import SMALL, Trial, main, once
from tests.soak.jobs import Job

TRAININGS = {  # different models, data and things that a checkpoint has to hold
    "ihd": ("net.dropout=0.2",),
    "diffusion": ("model=diffusion", "trainer.accumulate_grad_batches=2", "data.batch_size=32", "net.dropout=0.1"),
    "smdp": ("model=smdp", "data=grf", "data.resolution=8", "data.train_size=64", "data.val_size=16", "data.test_size=16"),
    "np": (
        "model=np",
        "net=cnp",
        "net.width=8",
        "net.hidden=16",
        "data.batch_size=8",
        "forward.num_levels=19",
        "data=hot_spots",
        "data.train_size=64",
        "data.val_size=16",
        "data.test_size=16",
    ),
    "sgd": ("model=ihd", "optimizer=sgd", "forward=constant_velocity", "trainer.on_nonfinite=skip"),
}
SWEEP = ("-m", *SMALL, "trainer.max_steps=9", "callback.pictures.every=0", "evaluate=[]", "seed=0,1,2")
JOBLIB = (*SWEEP, "hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
TWO = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "callback.pictures.every=0")
GENERATOR = ("heatgen.data.grf", "train=400", "val=50", "test=50", "resolution=32")
CLASSIFIER = ("heatgen.app.classifier", "digits", "--epochs", "10")


def kills(trial: Trial) -> None:
    """Kill one command of a random kind, and do it again to its end."""
    often = {training: 40, sampling: 10, evaluation: 10, generator: 8, classifier: 8, sweep: 10, joblib: 6, two: 8}
    (kind,) = trial.rng.choices(list(often), list(often.values()))
    kind(trial)
    for line in folders.halves(trial.folder):
        trial.fault(line)


def kill(trial: Trial, job: Job, seconds: float, watched: Path | None = None) -> str:
    """Kill a job at a random moment of the time that it takes; who was killed, or "" where it had ended.

    Args:
        trial: it belongs to.
        job: that runs.
        seconds: that it takes when it is left alone.
        watched: kill it while there is a temporary file here.

    Where a child was killed, its first process has to end by itself; without one that it can spare it goes on to its end.
    """
    moment = job.started + trial.rng.uniform(0, 1.05 * seconds)
    while job.poll() is None and time.monotonic() < moment:
        time.sleep(0.002)
    while watched and job.poll() is None and not (watched.is_dir() and folders.temporary(watched)):
        pass
    if job.poll() is not None:
        return ""
    children = [pid for pid in job.others() if not is_tracker(pid)]
    who = trial.rng.choice(["parent", "child", "all"]) if children else "parent"
    for pid in {"parent": [job.pid], "child": children[:1], "all": [job.pid, *children]}[who]:
        job.send(SIGKILL, pid)
    if job.wait(30 + 4 * seconds) is None:
        trial.fault(f"hang: it waits for ever for a child that was killed: {' '.join(job.words)}")
    elif left := job.orphans():
        trial.fault(f"{len(left)} orphans 5 s after the {who} of {' '.join(job.words)} was killed")
    if "Traceback" in job.output():
        trial.fault(f"traceback: {job.log}")
    job.end()
    for line in folders.halves(trial.folder):
        trial.fault(line)
    return who


def is_tracker(pid: int) -> bool:
    """Whether a process keeps the books of Python's or joblib's semaphores: without it they go on, and complain."""
    try:
        return b"resource_tracker" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def reference(trial: Trial, name: str, words: tuple[str, ...], real: bool = False) -> tuple[Path, float]:
    """The folder of a command that was not killed, and the seconds that it took."""
    folder, clock = trial.shared / name, trial.shared / f"{name}.json"
    if not clock.exists():
        shutil.rmtree(folder, ignore_errors=True)
        job = trial.succeed(*words, f"hydra.{'sweep' if '-m' in words else 'run'}.dir={folder}", real=real)
        clock.write_text(json.dumps(job.seconds))
    return folder, float(json.loads(clock.read_text()))


def training(trial: Trial, name: str = "", more: tuple[str, ...] = (), real: bool = False) -> None:
    """A training; once or twice, then it goes on by its own command or by resume=."""
    name = name or trial.rng.choice(list(TRAININGS))
    words, run = (*SMALL, *TRAININGS.get(name, ()), *more), trial.folder / "run"
    whole, seconds = reference(trial, f"train-{name}", ("train", *words), real)
    for _ in range(trial.rng.choice([1, 1, 2])):
        checkpoints = run / "checkpoints" if trial.rng.random() < 0.5 else None
        job = trial.start("train", *go_on(trial, run, words), real=real)
        who = kill(trial, job, seconds, checkpoints)
        trial.count(f"{'two processes,' if real else 'training'} {who} killed" if who else "ended before the kill")
    saved = step(run)
    trial.succeed("train", *go_on(trial, run, words), real=real)
    if step(run) < saved:
        trial.fault(f"{run} had step {saved}, and has {step(run)}")
    compare(trial, whole, run)
    for path in folders.temporary(run):
        trial.fault(f"left behind: {path}")


def go_on(trial: Trial, run: Path, words: tuple[str, ...]) -> list[str]:
    """How a run is begun, and gone on with: by the same command, or by resume=."""
    if (run / "config.yaml").exists() and trial.rng.random() < 0.5:
        return [f"resume={run}"]
    return [*words, f"hydra.run.dir={run}"]


def step(run: Path) -> int:
    """The step of a run's last checkpoint."""
    path = run / "checkpoints" / "last.ckpt"
    content = folders.read(path) if path.exists() else {}
    assert isinstance(content, dict)
    return int(content.get("global_step", 0))


def compare(trial: Trial, whole: Path, run: Path) -> None:
    """A fault for each thing that is not as in the run that was not killed."""
    for line in folders.differences(whole, run)[:5]:
        trial.fault(f"{run}: {line}")


def trained(trial: Trial) -> Path:
    """A run to draw from and to measure."""
    folder = once(trial, "trained", lambda folder: void(trial.succeed("train", *SMALL, f"hydra.run.dir={folder}")))
    return Path(shutil.copytree(folder, trial.folder / "run"))


def void(_: object) -> None:
    """Nothing."""


def sampling(trial: Trial) -> None:
    """Samples: there whole, or not at all."""
    words = ("sample", "n=16", "batch_size=5" if trial.rng.random() < 0.5 else "seed=1")
    again(trial, words, "samples", lambda run: sorted((run / "samples").glob("*/samples.pt")))


def evaluation(trial: Trial) -> None:
    """A measurement: its JSON and its row, or neither half."""
    words = ("evaluate", "mode=elbo", "n=64")
    again(trial, words, "evaluation", lambda run: sorted((run / "evaluation").glob("elbo_*.json")))
    for path in (trial.folder / "runs" / "results").glob("*.csv"):
        folders.table(path)


def again(trial: Trial, words: tuple[str, ...], kind: str, outputs: object) -> None:
    """Kill what works on a finished run, do it again, and compare with one that was left alone."""
    assert callable(outputs)
    run = trained(trial)
    seconds = trial.succeed(*words, f"run={run}").seconds
    before = [folders.stripped(folders.read(path)) for path in outputs(run)]
    for path in outputs(run):
        path.unlink()
    who = kill(trial, trial.start(*words, f"run={run}"), seconds)
    trial.count(f"{kind} {who} killed" if who else "ended before the kill")
    trial.succeed(*words, f"run={run}")
    for path in outputs(run):
        for line in folders.compare(before[-1], folders.stripped(folders.read(path)), str(path)):
            trial.fault(line)


def generator(trial: Trial) -> None:
    """Files of fields: whole, or not there; what is there is kept."""
    made(trial, (*GENERATOR, f"layout={trial.rng.choice(['contiguous', 'published'])}"), "out={}", "overwrite=true")


def classifier(trial: Trial) -> None:
    """The classifier's weights: whole, or not there."""
    made(trial, CLASSIFIER, "--data-dir={}", None)


def made(trial: Trial, words: tuple[str, ...], place: str, over: str | None) -> None:
    """Kill a command that makes files in a folder, do it again, and compare with one that was left alone."""
    whole, folder = trial.folder / "whole", trial.folder / "made"
    seconds = trial.succeed(*words, place.format(whole)).seconds
    who = kill(trial, trial.start(*words, place.format(folder)), seconds)
    trial.count(f"{words[0].rpartition('.')[2]} {who} killed" if who else "ended before the kill")
    trial.succeed(*words, place.format(folder), *([over] if over else []))
    compare(trial, whole, folder)
    for path in folders.temporary(folder):
        trial.fault(f"left behind: {path}")


def sweep(trial: Trial, words: tuple[str, ...] = SWEEP, name: str = "sweep", real: bool = False) -> None:
    """A sweep, continued with -m resume=SWEEP: every run and the table as of one that was left alone."""
    whole, seconds = reference(trial, name, ("train", *words), real)
    folder = trial.folder / "sweep"
    who = kill(trial, trial.start("train", *words, f"hydra.sweep.dir={folder}", real=real), seconds)
    trial.count(f"{name} {who} killed" if who else "ended before the kill")
    known = (folder / "sweep.json").exists()
    trial.succeed("train", *(("-m", f"resume={folder}") if known else (*words, f"hydra.sweep.dir={folder}")), real=real)
    same_sweep(trial, whole, folder)


def same_sweep(trial: Trial, whole: Path, folder: Path) -> None:
    """A fault for each run of a sweep, and each row of its table, that is not as in the other sweep."""
    runs = [
        sorted(path.name for path in place.iterdir() if path.is_dir() and path.name[0].isdigit())
        for place in (whole, folder)
    ]
    if runs[0] != runs[1]:
        trial.fault(f"{folder} has the runs {runs[1]}, not {runs[0]}")
    for name in set(runs[0]) & set(runs[1]):
        compare(trial, whole / name, folder / name)
    if not (folder / "comparison.json").exists():
        trial.fault(f"{folder} has no comparison")
        return
    rows = [folders.stripped(folders.read(place / "comparison.json")) for place in (whole, folder)]
    for line in folders.compare(rows[0], rows[1], "comparison.json"):
        trial.fault(f"{folder}: {line}")


def joblib(trial: Trial) -> None:
    """A sweep with two jobs at a time."""
    sweep(trial, JOBLIB, "joblib", real=True)


def two(trial: Trial) -> None:
    """A training in two processes."""
    training(trial, "two", TWO, real=True)


if __name__ == "__main__":
    main("kills", __doc__, kills)
