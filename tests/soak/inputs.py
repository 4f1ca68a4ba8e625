"""Bad inputs of every kind: each ends with exit code 0, or with one sentence and exit code 1; no traceback, no hang.

Values of every key of the three configs and of every group; words that are no override; damaged files; environment
variables; standard streams that are closed, full, or that nobody reads.
"""

import os
import shlex
from pathlib import Path

from tests.soak import settings
from tests.soak.damage import copied, damage
from tests.soak.frame import SMALL, Trial, last, main, once, verdict
from tests.soak.jobs import Job

LIMIT = 60  # seconds for a command
SHORT = (*SMALL, "trainer.max_steps=2", "callback.pictures.every=0")
GRF = ("data=grf", "data.resolution=8", "data.train_size=40", "data.val_size=12", "data.test_size=12")
WORDS = (Path(__file__).parent / "bad_words.txt").read_text().splitlines()
VARIABLES = (Path(__file__).parent / "bad_variables.txt").read_text().splitlines()
REAL = ("MPLBACKEND", "OMP_NUM_THREADS", "PYTHONIOENCODING")  # that act when a process starts


def inputs(trial: Trial) -> None:
    """One bad input, of a random kind."""
    often = {values: 58, words: 14, damaged: 18, variables: 5, streams: 5}
    (kind,) = trial.rng.choices(list(often), list(often.values()))
    kind(trial)


def trained(trial: Trial, *words: str, name: str = "trained") -> Path:
    """A copy of a run with samples, a measurement and all that comes of them."""

    def make(folder: Path) -> None:
        trial.succeed("train", *SHORT, *words, f"hydra.run.dir={folder}")
        trial.succeed("sample", f"run={folder}", "n=2", "trainer.accelerator=cpu")
        trial.succeed("evaluate", f"run={folder}", "mode=elbo", "n=4", "trainer.accelerator=cpu")

    copy = trial.folder / "runs" / "copy"
    return copy if copy.exists() else copied(once(trial, name, make), copy)


def tried(trial: Trial, kind: str, verb: str, *arguments: str, may_last: bool = False, **options: object) -> Job:
    """Try a command with a bad input, and count how it ended."""
    job = trial.run(verb, *arguments, limit=LIMIT, memory=9, checked=False, **options)
    trial.count(f"{kind} {verdict(trial, job, may_last)}")
    return job


def base(trial: Trial, verb: str) -> list[str]:
    """The words of a small job of a verb."""
    if verb == "train":
        return [*SHORT]
    small = ["n=4", "trainer.accelerator=cpu"] + (["mode=elbo"] if verb == "evaluate" else [])
    return [f"run={trained(trial)}", *small]


def values(trial: Trial) -> None:
    """A wrong value for a random key of a verb, or of a random choice of its groups."""
    rng = trial.rng
    verb = rng.choice(["train", "train", "train", "sample", "evaluate"])
    groups, config = list[str](), None
    while config is None:
        groups = settings.chosen(rng, verb, 0.05) if rng.random() < 0.6 else []
        groups = [word for word in groups if verb == "train" or not word.startswith(("data=", "forward="))]
        config = None if settings.is_sweep(groups) else settings.load(verb, groups)  # which would take a quarter of an hour
    keys = settings.leaves(config)
    key, value = rng.choice(sorted(keys)), rng.choice(settings.WRONG)
    if rng.random() < 0.1:
        key = key.rpartition(".")[0] or key  # a node, not a leaf
    small = [*settings.tiny(keys, groups), "trainer.accelerator=cpu"]
    if verb != "train":
        small.append(f"run={trained(trial)}")
    may_last = key.rpartition(".")[2] in settings.WORK
    tried(trial, f"value {verb}", verb, *groups, *small, f"{key}={value}", may_last=may_last)


def words(trial: Trial) -> None:
    """A word that is no override, or one that cannot be."""
    verb = trial.rng.choice(["train", "train", "sample", "evaluate"])
    file = trial.folder / "file"
    file.write_text("hello\n")
    word = trial.rng.choice(WORDS).replace("%f", str(file))
    if "%r" in word:
        word = word.replace("%r", str(trained(trial)))
    if "-m" in word:
        word = "--multirun"
    tried(trial, f"word {verb}", verb, *base(trial, verb), word, may_last=word in ("n=1e9",))


def damaged(trial: Trial) -> None:
    """A damaged file of a run, of a data set, of an extractor or of a table, and what reads it."""
    trial.rng.choice([of_a_run, of_a_run, of_a_run, of_fields, of_pictures, of_an_extractor, of_a_table])(trial)


def of_a_run(trial: Trial) -> None:
    """A damaged file of a run."""
    run, rng = trained(trial), trial.rng
    files = sorted(
        path
        for path in run.rglob("*")
        if path.is_file() and path.suffix in (".ckpt", ".yaml", ".txt", ".json", ".csv", ".pt")
    )
    weights = [6 if path.suffix in (".ckpt", ".yaml") else 1 for path in files]
    (path,) = rng.choices(files, weights)
    done = damage(rng, path)
    commands = {
        "sample": [
            f"run={run}",
            "n=2",
            f"checkpoint={'best' if path.name == 'best.ckpt' else 'last'}",
            "trainer.accelerator=cpu",
        ],
        "evaluate": [f"run={run}", "mode=elbo", "n=2", f"checkpoint={path if path.suffix == '.ckpt' else 'last'}"],
        "train": [f"resume={run}", "trainer.max_steps=4"],
        "heatgen.report.compare": [str(run)],
        "heatgen.report.site": [str(run)],
        "heatgen.report.publish": ["default", "--runs-dir", str(trial.folder / "runs"), "--folder", str(trial.folder)],
    }
    verb = rng.choice(list(commands)[:3] if path.suffix in (".ckpt", ".yaml") else list(commands))
    trial.count(f"({done.split()[1]})", 0)
    job = tried(trial, "damaged run,", verb, *commands[verb])
    explain(trial, job, done)


def explain(trial: Trial, job: Job, what: str) -> None:
    """Say what was damaged, where there is a fault."""
    if trial.faults:
        trial.fault(f"damaged: {what}; {last(job.output())}")


def of_fields(trial: Trial) -> None:
    """A damaged file of fields."""
    folder = trial.folder / "fields"

    def make(folder: Path) -> None:
        trial.succeed("heatgen.data.grf", f"out={folder}", "train=24", "val=8", "test=8", "resolution=8")

    copied(once(trial, "fields", make), folder)
    done = damage(trial.rng, folder / f"{trial.rng.choice(['train', 'train', 'val', 'test'])}.h5")
    explain(trial, tried(trial, "damaged fields,", "train", *SHORT, *GRF, f"data.path={folder}"), done)


def of_pictures(trial: Trial) -> None:
    """A damaged picture in a folder."""
    folder = copied(once(trial, "pictures", settings.pictures), trial.folder / "pictures")
    done = damage(trial.rng, trial.rng.choice(sorted(folder.iterdir())))
    job = tried(trial, "damaged picture,", "train", *SHORT, "data=image_folder", f"data.path={folder}", "data.shape=[3,8,8]")
    explain(trial, job, done)


def of_an_extractor(trial: Trial) -> None:
    """A damaged classifier, TorchScript file or file of kept features."""
    run, data = trained(trial), trial.folder / "data"
    words = [
        "evaluate",
        f"run={run}",
        "mode=fid",
        "n=4",
        "metric.reference_n=8",
        f"data.data_dir={data}",
        "metric.extractor=classifier",
    ]

    def make(folder: Path) -> None:
        trial.succeed("heatgen.app.classifier", "digits", "--epochs", "1", "--data-dir", str(folder))
        trial.succeed(words[0], *words[1:5], f"data.data_dir={folder}", words[6])
        script(folder / "network.pt")

    copied(once(trial, "extractors", make), data)
    path = trial.rng.choice(sorted(path for path in data.rglob("*") if path.is_file()))
    done = damage(trial.rng, path)
    if path.name == "network.pt":
        words[-1] = f"metric.extractor={path}"
    explain(trial, tried(trial, "damaged extractor,", *words), done)


def script(path: Path) -> None:
    """A TorchScript network."""
    import torch

    torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.ReLU())).save(str(path))


def of_a_table(trial: Trial) -> None:
    """A damaged table of results, which evaluate adds to and publish reads."""
    run, table = trained(trial), trial.folder / "runs" / "results" / "default.csv"
    trial.succeed("evaluate", f"run={run}", "mode=elbo", "n=4", "trainer.accelerator=cpu")
    done = damage(trial.rng, table)
    publish = ("heatgen.report.publish", "default", "--runs-dir", str(trial.folder / "runs"), "--folder", str(trial.folder))
    job = tried(trial, "damaged table,", *trial.rng.choice([publish, ("evaluate", f"run={run}", "mode=elbo", "n=4")]))
    explain(trial, job, done)


def variables(trial: Trial) -> None:
    """An environment variable with a wrong value."""
    name, _, value = trial.rng.choice(VARIABLES).partition("=")
    verb = trial.rng.choice(["train", "sample", "evaluate"])
    job = tried(trial, "variable", verb, *base(trial, verb), env={name: value}, real=name in REAL)
    explain(trial, job, shlex.join([f"{name}={value}"]))


def streams(trial: Trial) -> None:
    """Standard output, errors or both closed, full, or a pipe that nobody reads: the work is done all the same."""
    verb, name = trial.rng.choice(["train", "sample", "evaluate"]), trial.rng.choice(["closed", "/dev/full", "pipe"])
    words = base(trial, verb)
    run = trial.folder / "runs" / ("new" if verb == "train" else "copy")
    words += [f"hydra.run.dir={run}"] if verb == "train" else ["seed=7"]
    before = sorted(run.rglob("*.json"))
    numbers = trial.rng.choice([(1,), (2,), (1, 2)])
    reader, writer = os.pipe()
    os.close(reader)
    place = {"closed": None, "pipe": writer}.get(name, name)
    job = trial.run(verb, *words, limit=LIMIT, streams={number: place for number in numbers})
    os.close(writer)
    if job.code != 0:
        trial.fault(f"exit code {job.code} with {name} for {numbers}: {shlex.join(job.words)}: {last(job.output())}")
    made = {"train": "checkpoints/last.ckpt", "sample": "samples/*/samples.pt", "evaluate": "evaluation/elbo_*.json"}
    if not list(run.glob(made[verb])) or (verb == "evaluate" and len(sorted(run.rglob("*.json"))) == len(before)):
        trial.fault(f"{name} for {numbers}: {made[verb]} is not there: {shlex.join(job.words)}")
    trial.count("stream ok" if job.code == 0 else "stream failed")


if __name__ == "__main__":
    main("inputs", __doc__, inputs, count=700)
