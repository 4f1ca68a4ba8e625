"""A sweep that goes on: `-m resume=SWEEP` is what was typed when it began, in its folder, with what is typed now."""

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig

from heatgen.app.quoting import quoted, typed
from heatgen.check import ConfigError
from heatgen.report.unfinished import measures
from heatgen.runtime.command import FLAGS, call, command_line, runs_code
from heatgen.runtime.directory import COMMAND, CONFIG, SWEEP
from heatgen.runtime.files import absolute, write_text

ACTS_ANYWAY = ("hydra", "trainer", "evaluate", "publish", "resume", "trust", "runs_dir", "data_dir")
ACTS_OF_DATA = ("data.path", "data.data_dir")
MADE_BY = ("trainer._target_", "trainer._partial_")


def begin(folder: Path, jobs: int) -> None:
    """Note in a sweep's folder what it is called with; the command that began it stays that of its comparison.

    Args:
        folder: of the sweep.
        jobs: how many it has; 0: not known before.

    Raises:
        ConfigError: it is there, with arguments that its jobs could not change.
    """
    path = folder / SWEEP
    words = [word for word in sys.argv[1:] if key_of(word) != "hydra.sweep.dir"]
    again = []
    if path.is_file():
        before = read(folder)
        refuse_changes(folder, before["arguments"], words)
        again = [*before["again"], command_line()]
    write_text(path, json.dumps({"arguments": words, "again": again, "jobs": jobs}, indent=2) + "\n")
    if not again:
        write_text(folder / COMMAND, command_line() + "\n")


def advised(folder: Path) -> str:
    """The command that goes on with a sweep; with trust=true where its arguments name code, or its jobs measure."""
    words = read(folder)["arguments"] if (folder / SWEEP).is_file() else sys.argv[1:]
    trust = " trust=true" if measures(folder) or any(map(runs_code, words)) else ""
    return f"{call('train')} -m {typed('resume', str(folder))}{trust}"


def count(config: DictConfig) -> int:
    """How many jobs Hydra's own sweeper makes of its arguments; 0 for another sweeper."""
    sweeper = config.hydra.get("sweeper")
    if sweeper is None or not str(sweeper._target_).endswith(".BasicSweeper"):
        return 0
    words = [*(f"{key}={value}" for key, value in (sweeper.params or {}).items()), *config.hydra.overrides.task]
    overrides = {o.get_key_element(): o for o in OverridesParser.create().parse_overrides(words)}
    swept = [override for override in overrides.values() if override.is_sweep_override() and override.is_discrete_sweep()]
    try:
        return math.prod(len(list(override.sweep_string_iterator())) for override in swept)
    except (AssertionError, ValueError, HydraException):  # glob(...), of which Hydra's loader knows the options
        return 0


def goes_on(folder: Path) -> bool:
    """Whether a sweep was begun by an earlier command."""
    return bool(read(folder)["again"])


def arguments(typed: Sequence[str]) -> list[str]:
    """Arguments as they are, or for -m resume=SWEEP those of the sweep with what is typed besides, in its folder.

    Raises:
        ConfigError: there is no such sweep, its jobs cannot follow what is typed, or it was made by somebody whose arguments
            would run code here.
    """
    given = {key_of(word): word.partition("=")[2] for word in typed}
    resume = given.get("resume", "null").strip("'\"")
    if not any(word in FLAGS for word in typed) or resume in ("null", "auto"):
        return list(typed)
    runs_dir = given.get("runs_dir", os.environ.get("HEATGEN_RUNS", "runs")).strip("'\"")
    folder = find_sweep(resume, runs_dir)
    words = read(folder)["arguments"]
    if given.get("trust") != "true" and (bad := next(filter(runs_code, words), None)):
        raise ConfigError(f"{folder / SWEEP} has {bad}, which may run code; look at it, and add trust=true if it is yours.")
    now = {key_of(word): word for word in typed if key_of(word) != "resume" and word not in FLAGS}
    refuse_changes(folder, words, list(now.values()))
    more = [word for key, word in now.items() if key not in map(key_of, words)]
    words = [now.get(key_of(word), word) for word in words]  # also where a key was typed twice
    return [*words, *more, f"hydra.sweep.dir={quoted(str(folder))}"]


def refuse_changes(folder: Path, words: Sequence[str], now: Sequence[str]) -> None:
    """ConfigError for a new argument that the jobs of a sweep that goes on could not follow, or that makes other jobs.

    Args:
        folder: of the sweep.
        words: its arguments.
        now: what is typed besides; other values of what the sweep tries are among it as they are.
    """
    before = {key_of(word): word.lstrip("+") for word in words}
    for word in now:
        key, own = key_of(word), before.get(key_of(word), "")
        if word.startswith("-") or word.lstrip("+") == own or (is_swept(own) and not key.startswith("hydra")):
            continue
        if key.startswith("hydra.sweep."):
            raise ConfigError(f"{folder} goes on where it is; remove {word}.")
        if not acts_anyway(key) and not key.startswith("hydra/launcher"):
            raise ConfigError(
                f"{folder} keeps its jobs' own {key.lstrip('~')}; remove {word}, or start another sweep with it."
            )
        if is_swept(word) and not key.startswith("hydra"):
            raise ConfigError(
                f"{folder} has no jobs for several values of {key}; give one, or start another sweep with {word}."
            )


def is_swept(word: str) -> bool:
    """Whether an argument stands for several values."""
    try:
        return any(override.is_sweep_override() for override in OverridesParser.create().parse_overrides([word]))
    except HydraException:
        return False


def acts_anyway(key: str) -> bool:
    """Whether a run that goes on by itself may be given another value of a key."""
    name = key.lstrip("~")
    return (name.split(".")[0] in ACTS_ANYWAY and name not in MADE_BY) or name in ACTS_OF_DATA


def find_sweep(name: str, runs_dir: str) -> Path:
    """The folder of a sweep, or for `latest` the newest under runs_dir. ConfigError where there is none."""
    if name == "latest":
        found = {path.parent: path.stat().st_mtime for path in (Path(runs_dir) / "sweeps").glob(f"*/{SWEEP}")}
        if not found:
            raise ConfigError(f"There is no sweep under {Path(runs_dir) / 'sweeps'}; start one with {call('train')} -m.")
        return max(found, key=lambda path: found[path]).absolute()
    folder = absolute(name)
    if (folder / SWEEP).is_file():
        return folder
    if (folder / CONFIG).is_file():
        raise ConfigError(f"{name} is a run and no sweep; remove -m to go on with it.")
    raise ConfigError(f"{name} is not the folder of a sweep, which has a {SWEEP}; give one of {Path(runs_dir) / 'sweeps'}.")


def read(folder: Path) -> dict[str, list[str]]:
    """What a sweep's folder says of it. ConfigError where that cannot be read."""
    path = folder / SWEEP
    try:
        content = json.loads(path.read_text())
        found = {key: [str(word) for word in content[key]] for key in ("arguments", "again")}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path} cannot be read ({type(error).__name__}); start another sweep.") from error
    return found


def key_of(word: str) -> str:
    """The key of an argument, without + before it."""
    return word.lstrip("+").partition("=")[0]
