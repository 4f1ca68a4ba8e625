"""A sweep of three jobs, killed with -9 and continued with -m resume=SWEEP: the same runs and table, but for seconds."""

from tests.soak.frame import Trial, main
from tests.soak.kills import SMALL, kill, reference, same_sweep

MEASURED = "evaluate=['mode=forward metric.levels=2 metric.images=20']"


def sweeps(trial: Trial) -> None:
    """Kill a sweep once or twice; every other one is also measured."""
    measured = int(trial.folder.name) % 2
    words = ("train", "-m", *SMALL, "forward=heat,constant_velocity,blurring", MEASURED if measured else "evaluate=[]")
    whole, seconds = reference(trial, f"sweep-{measured}", words)
    folder = trial.folder / "sweep"
    job = trial.start(*words, f"hydra.sweep.dir={folder}")
    for _ in range(trial.rng.choice([1, 1, 2])):
        if who := kill(trial, job, seconds):
            trial.count(f"{who} killed")
        job = trial.start("train", "-m", f"resume={folder}") if (folder / "sweep.json").exists() else trial.start(*job.words)
    if job.wait(300) != 0:
        trial.fault(f"exit code {job.code}: {' '.join(job.words)}, see {job.log}")
    same_sweep(trial, whole, folder)


if __name__ == "__main__":
    main("sweeps", __doc__, sweeps, count=10)
