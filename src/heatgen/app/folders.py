"""Where a training or a sweep writes: decided once, by the first of all processes, before anything is written."""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Glob
from omegaconf import DictConfig, OmegaConf, read_write

from heatgen import check
from heatgen.app import sweep
from heatgen.app.load import advised
from heatgen.app.quoting import escaped, quoted
from heatgen.check import ConfigError
from heatgen.runtime import claim, directory, ranks
from heatgen.runtime.directory import CONFIG, OVERRIDES, SWEEP

OURS = {"multirun.yaml", SWEEP, directory.COMMAND}  # what a sweep that starts nothing leaves, besides logs
NAMES = ("name", "experiment_name", "data_name")
sweeping = ExitStack()  # the lock of the sweep that this process does


@contextmanager
def decided(config: DictConfig) -> Iterator[None]:
    """Hydra's own interpolations, which its config has only once a job runs."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


def check_names(config: DictConfig) -> None:
    """ConfigError for a name that leaves its folder, before anything is made there."""
    for key in NAMES:
        if config.get(key) is not None:
            check.name(key, str(config[key]), parts=True)


def check_swept_names(words: Sequence[str]) -> None:
    """ConfigError for a swept name that leaves its folder in one of its values, before anything is made there."""
    for override in OverridesParser.create().parse_overrides(list(words)):
        key = override.key_or_group
        if not override.is_discrete_sweep() or isinstance(override.value(), Glob):
            continue
        if key == "publish":
            raise ConfigError(f"publish names the page of a whole sweep; give one name in place of {override.input_line}.")
        for value in override.sweep_string_iterator() if key in NAMES else ():
            check.name(key, value.strip("'\""), parts=True)


def decide_run(config: DictConfig) -> None:
    """Put the folder of a training into Hydra's config, claimed where it is a new one.

    Raises:
        ConfigError: `resume` names no run, or does not go with the folder that is given; there is `publish` without a sweep.
    """
    if ranks.is_own_child():  # the folder is on its command line
        return
    if config.get("publish") is not None:
        fix = "add -m, or use publish=null"
        raise ConfigError(f"publish={config.publish} is for a sweep, which has runs to compare; {fix}.")
    with decided(config):
        check_names(config)
        folder = ranks.told(lambda: str(run_folder(config)))
    set_folder(config, "run", folder)


def run_folder(config: DictConfig) -> Path:
    """The folder of a training: the run that goes on, the one that is given, or a new one."""
    resume, runs_dir = config.get("resume"), config.get("runs_dir")
    wanted, new = Path(config.hydra.run.dir).absolute(), stamped(config, "run")
    if resume is not None and not isinstance(resume, str):
        raise ConfigError(f"resume must be a run's folder, latest, auto or null, not {resume!r}.")
    if resume not in (None, "auto"):
        if (Path(resume) / SWEEP).is_file():
            raise ConfigError(f"{resume} is a sweep; go on with it: {sweep.advised(Path(resume))}.")
        run = directory.find_run(resume, str(runs_dir), of_ranks=False)
        if not new and wanted.resolve() != run:
            raise ConfigError(f"resume={resume} goes on in its own folder; remove hydra.run.dir={wanted}.")
        return run
    if new and resume == "auto":
        raise ConfigError(
            "resume=auto goes on with what is in a folder, or starts there; give hydra.run.dir=FOLDER, or resume=latest."
        )
    if new:
        return claim.claim(wanted)
    claim.make(wanted)
    return wanted


def decide_sweep(config: DictConfig, alone: bool = True) -> None:
    """Put the folder of a sweep into Hydra's config and that of its jobs, claimed where it is a new one.

    Args:
        config: Hydra's.
        alone: whether to lock it, as trainings do.

    Raises:
        ConfigError: another process does the sweep that is there.
    """
    with decided(config):
        check_names(config)
        check_swept_names(config.hydra.overrides.task)
        folder = ranks.told(lambda: str(sweep_folder(config, alone)))
    set_folder(config, "sweep", folder)
    with read_write(config.hydra):
        config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(folder)}")  # a job's config is composed again


def sweep_folder(config: DictConfig, alone: bool) -> Path:
    """The folder of a sweep, locked where it is to be `alone`: a new one, or the one that is given."""
    resume, folder = config.get("resume"), Path(config.hydra.sweep.dir).absolute()
    if resume not in (None, "auto"):
        raise ConfigError(f"-m goes on with a sweep, and {resume} is none; remove -m, or give the folder of a sweep.")
    if stamped(config, "sweep"):
        folder = claim.claim(folder)
    else:
        claim.make(folder)
    if alone:
        sweeping.enter_context(claim.lock(folder, "is being swept"))
    return folder


def stamped(config: DictConfig, mode: str) -> bool:
    """Whether the folder of this mode (run, sweep) has the time in its name, so that every start has its own."""
    return "${now:" in str(OmegaConf.to_container(config.hydra[mode], resolve=False)["dir"])  # type: ignore[index, call-overload]


def set_folder(config: DictConfig, mode: str, folder: str) -> None:
    """Put a folder into Hydra's config as it is, whatever its name."""
    with read_write(config.hydra):
        config.hydra[mode].dir = escaped(folder)


def give_up() -> None:
    """At the end of a command: unlock its sweep, and remove the folders that it made where nothing came of it."""
    sweeping.close()
    for folder in list(claim.made):
        claim.give_up(folder, OURS)
    claim.made.clear()


@contextmanager
def locked(run_dir: Path, in_sweep: bool) -> Iterator[None]:
    """Keep a run to this training; one of several processes that were started for it has its lock, and signs it.

    in_sweep: whether the processes of a sweep that was killed may be about to end.
    """
    if ranks.is_own_child():
        claim.sign(run_dir)
        yield
        return
    with claim.lock(run_dir, patience=10 if in_sweep else 0):
        yield


def differing(run_dir: Path, words: Sequence[str]) -> list[str]:
    """The arguments of a training that are not those of the run that goes on; all of them where it does not say."""
    before = {}
    with suppress(ConfigError):
        before = recorded(run_dir)
    return [word for key, word in by_key(words).items() if word != before.get(key)]


def going_on(run_dir: Path, words: Sequence[str], exactly: bool) -> list[str] | None:
    """What a training into a folder that is given changes of the run that is there; None where there is none.

    Args:
        run_dir: the folder.
        words: the arguments of this training.
        exactly: whether it must be the same in all of them: in a sweep, whose jobs must not mix.

    Raises:
        ConfigError: the run there is another one.
    """
    if not (run_dir / CONFIG).is_file():
        return None
    before, now = recorded(run_dir), by_key(words)
    for key in dict.fromkeys([*now, *before]):
        if now.get(key) != before.get(key) and (exactly or not sweep.acts_anyway(key)):
            told = [f"with {one[key]}" if key in one else f"without {key}" for one in (before, now)]
            fix = "put ${hydra:job.num} into hydra.sweep.subdir" if exactly else "choose another folder"
            again = advised("resume", run_dir)
            raise ConfigError(f"{run_dir} holds a run {told[0]}, this one is {told[1]}; {fix}, or go on with {again}.")
    return differing(run_dir, words)


def by_key(words: Sequence[str]) -> dict[str, str]:
    """Arguments by their keys, each without + before it."""
    plain = [word.lstrip("+") for word in words]
    return {word.partition("=")[0]: word for word in plain if not word.startswith(("resume=", "hydra."))}


def recorded(run_dir: Path) -> dict[str, str]:
    """The arguments that a run was started and resumed with, by their keys. ConfigError where they cannot be read."""
    try:
        return by_key([word for line in (run_dir / OVERRIDES).read_text().splitlines() for word in shlex.split(line)])
    except (OSError, ValueError) as error:
        again = advised("resume", run_dir)
        raise ConfigError(f"{run_dir / OVERRIDES} cannot be read; go on with {again}, or choose another folder.") from error
