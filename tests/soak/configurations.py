"""Random legal configurations, trained, sampled, measured: whole, or refused in one sentence; no traceback and no hang.

Options and keys are read from conf/, so that new ones are tried by themselves; so are the words in comments (a | b | c).
"""

from tests.soak import settings
from tests.soak.frame import Trial, main, once, verdict

LIMIT = 90  # seconds for a command
MEMORY = 9  # GiB that a command may have on a CPU; with CUDA it reserves more addresses than there is memory
KEPT = (
    "resume",
    "evaluate",
    "publish",
    "run",
    "runs_dir",
    "data_dir",
    "_target_",
    "max_steps",
    "accelerator",
    "devices",
    "num_nodes",
)


def configurations(trial: Trial) -> None:
    """Train one configuration, and draw from it and measure it; where it is refused, one of fewer options."""
    once(trial, "pictures", settings.pictures)
    if not (trial.shared / "data" / "extractors" / "digits.pt").exists():
        trial.succeed("heatgen.app.classifier", "digits", "--epochs", "1")
    for number, rate in enumerate((0.2, 0.05, 0.01)):
        run = trial.folder / f"run-{number}"
        if attempt(trial, "train", rate, "trainer.log_every_n_steps=1", f"hydra.run.dir={run}") == "ok":
            attempt(trial, "sample", 0.2, f"run={run}")
            attempt(trial, "evaluate", 0.2, f"run={run}")
            return


def attempt(trial: Trial, verb: str, rate: float, *words: str) -> str:
    """Do a verb with random options and keys; how it ended."""
    words = (*composed(trial, verb, rate), f"trainer.accelerator={trial.accelerator}", *words)
    job = trial.run(verb, *words, limit=LIMIT, memory=MEMORY if trial.accelerator == "cpu" else None, checked=False)
    found = verdict(trial, job)
    trial.count(f"{verb} {found}")
    return found


def composed(trial: Trial, verb: str, rate: float) -> list[str]:
    """Random options that compose, made small, with up to three random keys changed."""
    rng, config, words = trial.rng, None, list[str]()
    while config is None:
        without = [] if verb == "train" else ["data", "forward"]
        words = [word for word in settings.chosen(rng, verb, rate) if word.partition("=")[0] not in without]
        config = None if settings.is_sweep(words) else settings.load(verb, words)  # each job of a sweep is a configuration
    keys = settings.leaves(config)
    if "data=image_folder" in words:
        words += [f"data.path={trial.shared / 'pictures'}", "data.shape=[3,8,8]"]
    words += settings.tiny(keys, words) + ["metric.extractor=classifier"] * ("metric.extractor" in keys)
    free = [key for key in keys if not {key.split(".")[0], key.rpartition(".")[2]} & set(KEPT)]
    for key in rng.sample(free, rng.choice([0, 1, 1, 2, 3])):
        if (value := settings.legal(rng, key, keys[key])) is not None:
            words.append(f"{key}={value}")
    return words


if __name__ == "__main__":
    main("configurations", __doc__, configurations, count=500, accelerators=("cpu", "gpu", "auto"))
