"""One sentence for a user's mistake: what is wrong, which key, and the fix. Bugs keep their traceback."""

import errno
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from heatgen.check import CONF, ConfigError, did_you_mean, options_of
from heatgen.runtime import directory

UNUSABLE = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EPERM, errno.ENOTDIR)


wants_traceback = False  # set by `entry`


def entry(main: Callable[[], Any]) -> None:
    """Run an entry point; a user's mistake ends in one sentence and exit code 1 (HYDRA_FULL_ERROR=1: the traceback)."""
    global wants_traceback
    before = {key: os.environ.get(key) for key in ("HYDRA_FULL_ERROR", "HEATGEN_EXPLAIN", "HEATGEN_COMMAND")}
    os.environ["HEATGEN_COMMAND"] = directory.typed()  # for the jobs that a launcher starts in processes of its own
    os.environ.setdefault("HEATGEN_EXPLAIN", "0" if before["HYDRA_FULL_ERROR"] else "1")  # for our processes too
    wants_traceback = os.environ["HEATGEN_EXPLAIN"] == "0"
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises, and we explain
    try:
        main()
    except Exception as error:
        refuse(error)
    finally:
        for key, value in before.items():
            os.environ.pop(key, None)
            os.environ.update({} if value is None else {key: value})


def refuse(error: Exception) -> NoReturn:
    """End with one sentence and exit code 1 for a user's mistake; raise anything else."""
    sentence = None if wants_traceback else explain(error, Path(sys.argv[0]).stem)
    if sentence is None:
        raise error
    bars = "tqdm" in sys.modules and len(sys.modules["tqdm"].tqdm._instances)
    print(f"{chr(10) if bars else ''}Error: {sentence}", file=sys.stderr)  # below a progress bar, not behind it
    sys.exit(1)


def explain(error: BaseException, script: str) -> str | None:
    """The sentence for an error of `python <script>.py ...`, or None if it is not the user's."""
    for cause in causes(error):
        if isinstance(cause, ConfigError):
            return str(cause).split("ConfigError: ")[-1].strip()  # a loading process adds its traceback before that
        if isinstance(cause, OSError) and cause.errno in UNUSABLE:
            place = cause.filename or "A file of the run"
            return f"{place} cannot be written ({cause.strerror}); choose another runs_dir or free space."
    message, kind = str(error), type(error)
    module = kind.__module__.split(".")[0]
    if kind.__name__ == "OverrideParseException":
        first = message.splitlines()[0]
        return f"An argument cannot be read ({first}); write key=value, quoted where the value has = or , in it."
    if module in ("hydra", "omegaconf") or isinstance(error, OmegaConfBaseException):
        return explain_config(message, script)
    return None


def causes(error: BaseException) -> Iterator[BaseException]:
    """The error and what caused it, outermost first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def check_choices(choices: Any) -> None:
    """ConfigError for the choice of an optional group that does not exist, which Hydra passes over in silence."""
    for group, choice in choices.items():
        options = options_of(group)
        if options and choice not in (None, "null", *options):
            raise ConfigError(unknown_option(group, choice))


def unknown_option(group: str, choice: str) -> str:
    """The sentence for group=choice that is not there."""
    options = options_of(group)
    return f"{group}={choice} is not an option{did_you_mean(choice, options)} (options: {', '.join(options)})."


def explain_config(message: str, script: str) -> str:
    """What Hydra or OmegaConf says of a config, in one sentence with a suggestion."""
    missing = re.search(r"Could not find '([\w/]+)/([^'/]+)'", message)
    if missing:
        return unknown_option(missing[1], missing[2])
    key = re.search(r"Could not (?:override|find|delete)[^']*'([^']+)'", message) or re.search(r"Key '([^']+)'", message)
    full = re.search(r"full_key: ([\w.]+)", message)
    name = key[1] if key else full[1] if full else ""
    name = name.split("=")[0].lstrip("+~")
    if name and ("not in struct" in message or "No match" in message or "Could not" in message):
        known = known_keys(script)
        if name in known:
            fix = f"choose that option too; with resume, and where a sweep chooses it, write ++{name}="
            return f"{name} is a key of another option of its group; {fix}."
        hint = did_you_mean(name, known)
        return f"{name} is not a key of the config{hint or f'; see python {script}.py --help.'}"
    return message.splitlines()[0]


def groups_of(script: str) -> list[str]:
    """The config groups that <script>.py chooses from, in the order of its defaults."""
    primary = OmegaConf.load(CONF / f"{script}.yaml")
    defaults = OmegaConf.select(primary, "defaults")
    names = [str(next(iter(entry))).removeprefix("optional ") for entry in defaults if isinstance(entry, DictConfig)]
    groups = [name.split("@")[0] for name in names if not name.startswith("override ")]
    return list(dict.fromkeys(group for group in groups if options_of(group)))


def describe_groups(script: str) -> str:
    """The groups of a script and their options, one group a line; for --help."""
    return "\n".join(f"{group}: {', '.join(options_of(group))}" for group in groups_of(script))


def known_keys(script: str) -> list[str]:
    """Every group and every key that a config of `script` may have, dotted."""
    groups = groups_of(script)
    keys = groups + dotted(OmegaConf.load(CONF / f"{script}.yaml"))
    for path in CONF.glob("*/*.yaml"):
        content = OmegaConf.load(path)
        group = path.parent.name
        if group not in groups:
            continue
        prefix = {"callback": f"callback.{path.stem}.", "mode": "", "logger": "logger."}.get(group, f"{group}.")
        keys += [prefix + key for key in dotted(content)]
    return [key for key in keys if "_target_" not in key and not key.startswith(("hydra", "defaults"))]


def dotted(config: object, prefix: str = "") -> list[str]:
    """The keys of a config and of what is in it, as a.b.c."""
    if not isinstance(config, DictConfig):
        return []
    keys: list[str] = []
    for key in map(str, config):
        keys.append(f"{prefix}{key}")
        if not OmegaConf.is_missing(config, key) and not OmegaConf.is_interpolation(config, key):
            keys += dotted(config[key], f"{prefix}{key}.")
    return keys
