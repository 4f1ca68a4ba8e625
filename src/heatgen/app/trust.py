"""What of a run's config.yaml may be built: options of heatgen, and more only where the user says trust=true."""

import importlib
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from heatgen.check import ConfigError

ROOMS = {  # a node of a run's config -> the rooms whose classes it may name
    **{name: (name,) for name in ("data", "net", "sampler", "regime", "callback", "logger")},
    "model": ("model", "regime"),
    "forward": ("forward", "basis"),
}
FUNCTIONS = ("sampler", "logger", "forward")  # rooms whose options are functions too
DOTTED = re.compile(r"[A-Za-z]\w*(\.[A-Za-z]\w*)+", re.ASCII)


def check_config(config: Mapping[Any, Any], path: Path, named: Collection[str] = ()) -> None:
    """ConfigError where the config of a run names code that is no option of heatgen, at any depth.

    Args:
        config: its content as plain data.
        path: its file, for the sentence.
        named: targets that the user's own command line names.
    """
    for key, target in entries(config):
        if isinstance(target, str) and "${" in target and key.split(".")[0] in {*ROOMS, "optimizer", "trainer"}:
            raise ConfigError(f"{path} has {key}={target}, which would be worked out (${{...}}); write what it stands for.")
        if (
            key.endswith("_target_")
            and not (isinstance(target, str) and target in named)
            and not is_option(key.split(".")[0], target)
        ):
            raise ConfigError(
                f"{path} runs code that is no option of heatgen ({key}={target}); if you know whom the run is from, "
                "and want that, say trust=true."
            )
    for key, value in (config.get("logger") or {}).items() if isinstance(config.get("logger"), Mapping) else ():
        for option, inside in value.items() if isinstance(value, Mapping) else ():
            if isinstance(inside, Mapping):  # settings of W&B, which can say what it starts
                raise ConfigError(f"{path} gives logger.{key}.{option} settings; if you want them, say trust=true.")


def entries(config: object) -> Iterator[tuple[str, object]]:
    """What nested containers hold: dotted keys and their values, containers too."""
    stack = [("", config)]
    while stack:
        name, value = stack.pop()
        if isinstance(value, Mapping):
            stack += [(f"{name}.{key}" if name else str(key), one) for key, one in value.items()]
        elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
            stack += [(f"{name}.{i}", one) for i, one in enumerate(value)]
        yield name, value


def is_option(group: str, target: object) -> bool:
    """Whether a node of a group may name a target: a class (or sampler, or logger) that is defined in the group's room."""
    if not isinstance(target, str) or not DOTTED.fullmatch(target):
        return False
    if group == "trainer":
        return target == "lightning.Trainer"
    module, _, name = target.rpartition(".")
    if group == "optimizer":
        import torch

        found = getattr(torch.optim, name, None) if module == "torch.optim" else None
        return isinstance(found, type) and issubclass(found, torch.optim.Optimizer)
    room = ".".join(target.split(".")[:2])
    if room not in [f"heatgen.{name}" for name in ROOMS.get(group, ())]:
        return False
    try:
        found = getattr(importlib.import_module(module), name, None)  # of ours, whose import does nothing
    except ImportError:  # not a module: a walk through what one has imported
        return False
    home = str(getattr(found, "__module__", ""))
    if isinstance(found, type):
        return f"{home}.".startswith(f"{room}.")
    return group in FUNCTIONS and callable(found) and home == module


def named_targets(words: Sequence[str]) -> set[str]:
    """The targets that arguments KEY._target_=NAME of a command line name."""
    pairs = (word.partition("=") for word in words)
    return {value.strip("'\"") for key, _, value in pairs if key.split(".")[-1] == "_target_"}


def foreign_targets(cfg: DictConfig) -> set[str]:
    """The targets in the config of this command, of whatever files it is composed, that are no options of heatgen."""
    found = entries(OmegaConf.to_container(cfg, resolve=False))
    return {str(target) for key, target in found if key.endswith("_target_") and not is_option(key.split(".")[0], target)}


def leaves_out_measurements(cfg: DictConfig, words: Sequence[str]) -> bool:
    """Whether `evaluate` of a run that goes on is not done: without trust, unless this command line has its own."""
    given = any(word.lstrip("+~").partition("=")[0] == "evaluate" for word in words)
    return bool(cfg.get("evaluate")) and cfg.resume not in (None, "auto") and not cfg.trust and not given
