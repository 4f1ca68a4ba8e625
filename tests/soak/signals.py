"""INT, TERM, HUP, QUIT, USR1, USR2 at random moments: a training saves, says how to go on, and ends with the same bits."""

import signal
import time

from tests.soak import folders
from tests.soak.frame import SMALL, Trial, main
from tests.soak.kills import TWO, compare, go_on, reference, step

NUMBERS = [getattr(signal, f"SIG{name}") for name in ("INT", "TERM", "HUP", "QUIT", "USR1", "USR2")]
LONG = (*SMALL, "trainer.max_steps=60", "callback.checkpoints.every=20", "callback.pictures.every=0")


def signals(trial: Trial) -> None:
    """Stop a training by signals until it is done: sometimes in two processes, sometimes all its processes at once."""
    real = trial.rng.random() < 0.15
    words, run = (*LONG, *(TWO if real else ())), trial.folder / "run"
    whole, seconds = reference(trial, "two" if real else "one", ("train", *words), real)
    for _ in range(trial.rng.choice([1, 2])):
        number = trial.rng.choice(NUMBERS)
        stop(trial, run, words, number, seconds, real)
    trial.succeed("train", *go_on(trial, run, words), real=real)
    compare(trial, whole, run)
    for path in folders.temporary(run):
        trial.fault(f"left behind: {path}")


def stop(trial: Trial, run, words: tuple[str, ...], number: int, seconds: float, real: bool) -> None:
    """Send one signal at a random moment; a fault where it does not end as it should."""
    job, before = trial.start("train", *go_on(trial, run, words), real=real), step(run)
    moment = job.started + trial.rng.uniform(0, seconds)
    while job.poll() is None and time.monotonic() < moment:
        time.sleep(0.002)
    training = (run / "metrics.csv").exists()  # before that there may be no handler yet, and nothing to save
    reached = step(run)
    if job.poll() is None:
        together = real and trial.rng.random() < 0.5
        for pid in (job.pid, *(job.others() if together else [])):
            job.send(number, pid)
    name = signal.Signals(number).name
    if job.wait(60) is None:
        trial.fault(f"hang: {name} after {moment - job.started:.2f} s, see {job.log}")
    elif left := job.orphans():
        trial.fault(f"{len(left)} orphans 5 s after {name}, see {job.log}")
    if "Traceback" in job.output():
        trial.fault(f"traceback after {name}, see {job.log}")
    if job.code not in (0, 128 + number):
        trial.fault(f"exit code {job.code} after {name}, see {job.log}")
    saved = step(run)
    if saved < max(before, reached):
        trial.fault(f"{name}: step {saved} is saved, where {max(before, reached)} was before")
    if training and job.code and not before and not (run / "checkpoints" / "last.ckpt").exists():
        trial.fault(f"{name} in the middle of the training, and nothing is saved, see {job.log}")
    if training and job.code and not before and "resume=" not in job.output() and "trained 60" not in job.output():
        trial.fault(f"{name} in the middle of the training, and not a word of resume=, see {job.log}")
    trial.count(f"{name} {'ended before it' if job.code == 0 else 'while it trained' if training else 'while it started'}")
    for line in folders.halves(trial.folder):
        trial.fault(line)


if __name__ == "__main__":
    main("signals", __doc__, signals)
