"""What all soak scripts share: trials with random numbers of their own, counts by outcome, one line at the end."""

import argparse
import os
import random
import shlex
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tests.soak import jobs

SMALL = (  # a network and a training that take seconds
    "data.recommended.unet.model_channels=8",
    "data.recommended.unet.norm_groups=4",
    "forward.num_levels=5",
    "model.warmup_steps=3",
    "trainer.accelerator=cpu",
    "trainer.max_steps=24",
    "trainer.val_check_interval=8",
    "trainer.log_every_n_steps=1",
    "callback.pictures.n=4",
    "callback.checkpoints.every=3",
)


@dataclass
class Trial:
    """One try.

    Args:
        rng: its random numbers.
        folder: its own.
        shared: a folder of all trials of a script, for what is made once.
        accelerator: what its commands work on.
    """

    rng: random.Random
    folder: Path
    shared: Path
    accelerator: str = "cpu"
    outcomes: list[str] = field(default_factory=list)  # what was counted
    faults: list[str] = field(default_factory=list)  # what was wrong, a line each
    started: list[jobs.Job] = field(default_factory=list)

    def count(self, outcome: str, times: int = 1) -> None:
        """Count an outcome."""
        self.outcomes += [outcome] * times

    def fault(self, line: str) -> None:
        """Note what is wrong."""
        self.faults.append(line)

    def env(self) -> dict[str, str]:
        """An environment in which runs go to the trial's folder and data to the shared one."""
        places = {"HEATGEN_RUNS": self.folder / "runs", "HEATGEN_DATA": self.shared / "data", "HOME": self.folder / "home"}
        return {name: str(place) for name, place in places.items()}

    def start(self, *words: str, real: bool = False, name: str = "", **options: object) -> jobs.Job:
        """Start a command: a fork, or where `real` a process of its own."""
        log = self.folder / f"{name or f'{len(self.started)}-{words[0]}'}.log"
        env = self.env() | dict(options.pop("env", None) or {})
        job = jobs.spawn(words, log, env) if real else jobs.fork(words, log, env, **options)
        self.started.append(job)
        return job

    def run(self, *words: str, limit: float = 300, checked: bool = True, **options: object) -> jobs.Job:
        """Do a command; a fault (unless `verdict` says so later) where it does not end in `limit` seconds."""
        job = self.start(*words, **options)
        limit *= max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # others work here too
        if job.wait(limit) is None and checked:
            self.fault(f"hang: {' '.join(words)} runs after {limit:.0f} s")
            job.end()
        return job

    def succeed(self, *words: str, **options: object) -> jobs.Job:
        """Do a command; a fault where it fails."""
        job = self.run(*words, **options)
        if job.code != 0:
            self.fault(f"exit code {job.code}: {' '.join(words)}: {last(job.output())}")
        return job


def last(text: str) -> str:
    """The last line of an output."""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    return lines[-1] if lines else "(no output)"


def sentence(job: jobs.Job) -> str | None:
    """What is wrong with the refusal of a job that ended with exit code 1: None, or a word for it."""
    text = job.output()
    if "Traceback (most recent call last)" in text:
        return "traceback"
    lines = [line for line in text.splitlines() if line.startswith("Error: ")]
    if len(lines) != 1:
        return f"{len(lines)} sentences"
    return None if lines[0].rstrip().endswith((".", "?", ")")) else "half a sentence"


def verdict(trial: Trial, job: jobs.Job, may_last: bool = False) -> str:
    """How a command ended: ok | refused (in one sentence, exit code 1) | ...; all but these two are faults.

    Args:
        trial: it belongs to.
        job: the command; one that still runs is stopped by Ctrl-C.
        may_last: whether it may run as long as it likes, and only has to end at Ctrl-C.
    """
    lasts = job.poll() is None
    if lasts:
        job.send(signal.SIGINT)
        lasts = job.wait(20) is None or not may_last
        job.end()
    if lasts:
        found = "hang"
    elif job.code == 1:
        found = sentence(job) or "refused"
        if found.endswith("sentences") and any(word.startswith("hparams_search=") for word in job.words):
            found = "refused"  # each trial of a search says its own
    elif "Traceback (most recent call last)" in job.output():
        found = "traceback"
    elif job.code in (0, 130):
        found = "ok"
    else:
        found = f"exit code {job.code}"
    if found not in ("ok", "refused"):
        trial.fault(f"{found}: {shlex.join(job.words)}: {last(job.output())}")
    return found


def main(
    name: str, doc: str | None, trial: Callable[[Trial], None], count: int = 100, accelerators: tuple[str, ...] = ()
) -> None:
    """The command of a script: try so many times, or for so many minutes; exit code 1 where something was wrong.

    Args:
        name: of the script.
        doc: what it does.
        trial: one try.
        count: how many there are.
        accelerators: what its commands can work on, the first by default; none: the script itself says it.
    """
    parser = argparse.ArgumentParser(prog=f"python -m tests.soak.{name}", description=(doc or "").splitlines()[0])
    parser.add_argument("count", nargs="?", type=int, default=count, help=f"how many trials (default {count})")
    parser.add_argument("--minutes", type=float, help="start no trial after so many minutes")
    parser.add_argument("--seed", type=int, default=None, help="of the trials (default: the time)")
    parser.add_argument("--trial", type=int, help="this one alone")
    parser.add_argument("--work", type=Path, help="the folder to work in (default: a fresh one in the temporary folder)")
    if accelerators:
        parser.add_argument("--accelerator", choices=accelerators, default=accelerators[0])
    options = parser.parse_args()
    accelerator = getattr(options, "accelerator", "cpu")
    seed = int(time.time()) % 100000 if options.seed is None else options.seed
    work = options.work or Path(tempfile.mkdtemp(prefix=f"soak_{name}_"))
    jobs.warm()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # also of a `timeout`: what was counted so far is said
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # `nohup` ignores it, and its children would
    counts, bad, started = Counter[str](), 0, time.monotonic()
    for number in range(options.count) if options.trial is None else (options.trial,):
        if options.minutes and time.monotonic() - started > 60 * options.minutes:
            break
        try:
            faults = attempt(trial, seed, number, work, counts, accelerator)
        except KeyboardInterrupt:
            break
        if faults:
            again = f"python -m tests.soak.{name} --seed {seed} --trial {number}"
            again += f" --accelerator {accelerator}" * (accelerator != "cpu")
            print("\n".join([f"BAD {again}   (see {work / str(number)})", *(f"    {line}" for line in faults)]), flush=True)
        bad += bool(faults)
        counts["trials"] += 1
    if not bad and not options.work:
        shutil.rmtree(work, ignore_errors=True)
    tried = counts.pop("trials", 0)
    found = ", ".join(f"{times} {outcome}" for outcome, times in sorted(counts.items()))
    minutes = (time.monotonic() - started) / 60
    print(f"{name}: {tried} trials in {minutes:.1f} minutes, seed {seed}: {found}; {bad} bad", flush=True)
    sys.exit(bool(bad))


def attempt(
    function: Callable[[Trial], None], seed: int, number: int, work: Path, counts: Counter[str], accelerator: str = "cpu"
) -> list[str]:
    """One trial; what was wrong. The folder of a good one is removed."""
    trial = Trial(random.Random(f"{seed}/{number}"), work / str(number), work / "shared", accelerator)
    shutil.rmtree(trial.folder, ignore_errors=True)
    trial.folder.mkdir(parents=True)
    trial.shared.mkdir(exist_ok=True)
    try:
        function(trial)
    except Exception as error:  # a file is missing, or is not what it should be
        where = traceback.extract_tb(error.__traceback__)[-1]
        trial.fault(f"{type(error).__name__}: {error} ({where.name}, line {where.lineno})")
    finally:
        for job in trial.started:
            job.end()
    counts.update(trial.outcomes)
    if not trial.faults and "HEATGEN_SOAK_KEEP" not in os.environ:
        shutil.rmtree(trial.folder)
    return trial.faults


def once(trial: Trial, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that all trials share, made by the first that wants it."""
    folder = trial.shared / name
    if not folder.exists():
        make(folder)
    return folder
