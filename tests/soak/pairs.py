"""Pairs of starts in one instant: every run is whole and its own, two that want one folder are told apart.

Pairs of trainings (the runs asked for), and now and then of sweeps, of resumes of one run, of trainings into one folder, of
samplings and of evaluations of one run.
"""

import os
import shutil
from pathlib import Path

from tests.soak import folders
from tests.soak.frame import SMALL, Trial, last, main, once, sentence
from tests.soak.jobs import Job
from tests.soak.kills import SWEEP, compare, reference, void

WORDS = (*SMALL, "trainer.max_steps=6", "trainer.val_check_interval=6", "callback.pictures.every=0")


def pairs(trial: Trial) -> None:
    """A pair of trainings, and what else is due."""
    trainings(trial)
    beside = (sweeps, resumes, one_folder, evaluations, samplings)
    if int(trial.folder.name) % 2 == 0:
        beside[int(trial.folder.name) // 2 % len(beside)](trial)


def together(trial: Trial, *commands: tuple[str, ...], limit: float = 300) -> list[Job]:
    """Start commands in one instant, and wait for all."""
    gate = os.pipe()
    jobs = [trial.start(*words, gate=gate) for words in commands]
    for end in gate:
        os.close(end)
    for job in jobs:
        if job.wait(limit) is None:
            trial.fault(f"hang: {' '.join(job.words)}")
            job.end()
    return jobs


def all_good(trial: Trial, jobs: list[Job]) -> bool:
    """Whether all ended well; a fault for each that did not."""
    for job in jobs:
        if job.code != 0:
            trial.fault(f"exit code {job.code}: {' '.join(job.words)}: {last(job.output())}")
    return all(job.code == 0 for job in jobs)


def trainings(trial: Trial) -> None:
    """Two trainings of one name: two folders, each as if it had been alone."""
    seeds = trial.rng.sample(range(4), 2)
    words = {seed: ("train", *WORDS, f"seed={seed}", f"optimizer.lr=0.00{seed + 1}") for seed in seeds}
    alone = {seed: reference(trial, f"alone-{seed}", words[seed])[0] for seed in seeds}
    all_good(trial, together(trial, *words.values()))
    runs = sorted(path.parent for path in (trial.folder / "runs" / "ihd-heat-digits").glob("*/config.yaml"))
    if len(runs) != 2:
        trial.fault(f"there are {len(runs)} runs of 2: {[run.name for run in runs]}")
    for run in runs:
        config = folders.read(run / "config.yaml")
        assert isinstance(config, dict)
        before = len(trial.faults)
        if config["seed"] not in seeds or config["optimizer"]["lr"] != 0.001 * (config["seed"] + 1):
            trial.fault(f"{run} is of seed {config['seed']} and lr {config['optimizer']['lr']}")
        else:
            compare(trial, alone[config["seed"]], run)
        trial.count("whole run", len(trial.faults) == before)


def sweeps(trial: Trial) -> None:
    """Two sweeps: two folders, two tables."""
    whole, _ = reference(trial, "sweep", ("train", *SWEEP))
    all_good(trial, together(trial, ("train", *SWEEP), ("train", *SWEEP)))
    found = sorted((trial.folder / "runs" / "sweeps").iterdir())
    if len(found) != 2:
        trial.fault(f"there are {len(found)} sweeps of 2")
    for folder in found:
        rows = [folders.stripped(folders.read(place / "comparison.json")) for place in (whole, folder)]
        for line in folders.compare(rows[0], rows[1], f"{folder}/comparison.json"):
            trial.fault(line)
    trial.count("pair of sweeps")


def one_of(trial: Trial, jobs: list[Job], whole: Path, run: Path, what: str) -> None:
    """One has trained the run as if alone; the other was told so in one sentence, or had nothing left to do."""
    good = [job for job in jobs if job.code == 0]
    for job in jobs:
        if job.code == 1 and (wrong := sentence(job)):
            trial.fault(f"{wrong}: {job.log}")
        elif job.code not in (0, 1):
            trial.fault(f"exit code {job.code}: {' '.join(job.words)}")
    if not good:
        trial.fault(f"neither trained: {last(jobs[0].output())}")
    compare(trial, whole, run)
    trial.count(f"pair of {what}, {2 - len(good)} refused")


def resumes(trial: Trial) -> None:
    """Two resumes of one run: one trains."""
    words = ("train", *WORDS, "trainer.max_steps=30")
    whole, _ = reference(trial, "thirty", words)
    short = once(trial, "six", lambda folder: void(trial.succeed("train", *WORDS, f"hydra.run.dir={folder}")))
    run = Path(shutil.copytree(short, trial.folder / "resumed"))
    shutil.rmtree(run / "evaluation")  # the result of the first steps, which one training has not
    resume = ("train", f"resume={run}", "trainer.max_steps=30")
    one_of(trial, together(trial, resume, resume), whole, run, "resumes")


def one_folder(trial: Trial) -> None:
    """Two trainings into one folder that was given: one trains."""
    run, words = trial.folder / "given", ("train", *WORDS, "trainer.max_steps=30")
    whole, _ = reference(trial, "thirty", words)
    given = (*words, f"hydra.run.dir={run}")
    one_of(trial, together(trial, given, given), whole, run, "trainings into one folder")


def evaluations(trial: Trial) -> None:
    """Six evaluations of one run: six results, six times their rows, one header."""
    short = once(trial, "six", lambda folder: void(trial.succeed("train", *WORDS, f"hydra.run.dir={folder}")))
    run = Path(shutil.copytree(short, trial.folder / "measured"))
    words = ("evaluate", f"run={run}", "mode=elbo", "n=8", "experiment_name=six")
    all_good(trial, together(trial, *[words] * 6))
    if (number := len(list((run / "evaluation").glob("elbo_*.json")))) != 6:
        trial.fault(f"{run} has {number} results of 6")
    rows = folders.table(trial.folder / "runs" / "results" / "six.csv")
    if (
        len(rows) % 6
        or len({len([row for row in rows if row["metric"] == name]) for name in {row["metric"] for row in rows}}) > 1
    ):
        trial.fault(f"six.csv has {len(rows)} rows of 6 results")
    trial.count("six evaluations")


def samplings(trial: Trial) -> None:
    """Two samplings of one run: the samples of one."""
    short = once(trial, "six", lambda folder: void(trial.succeed("train", *WORDS, f"hydra.run.dir={folder}")))
    run = Path(shutil.copytree(short, trial.folder / "drawn"))
    all_good(trial, together(trial, *[("sample", f"run={run}", "n=4")] * 2))
    for line in folders.halves(run):
        trial.fault(line)
    trial.count("pair of samplings")


if __name__ == "__main__":
    main("pairs", __doc__, pairs)
