"""The weights that a training begins with (`init_from`), and those that it leaves as they are (`model.freeze`)."""

import logging
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, Any

from heatgen.check import ConfigError, did_you_mean, first_difference
from heatgen.runtime import directory, ranks

if TYPE_CHECKING:
    from torch import Tensor

    from heatgen.model.module import Method

log = logging.getLogger("heatgen")


def start_from(model: "Method", source: str, runs_dir: str) -> Path:
    """Give a model the weights of an old run: averaged where it has averages, else raw, with a note.

    Taken are the parameters of the model and what its network keeps beside them. What the forward map, the data or the
    method measure is the new run's own, and so are the optimizer, the steps and the averages to come.

    Args:
        model: as the config of the new run builds it.
        source: the old run, or `latest`, whose last.ckpt is read; or a checkpoint.
        runs_dir: where `latest` looks.

    Returns:
        The checkpoint.

    Raises:
        ConfigError: there is none, or a name or a shape differs.
    """
    if not model.trainable:
        raise ConfigError("init_from= is not used by a model that is not trained; remove it.")
    path = checkpoint_of(source, runs_dir)
    state = directory.read_checkpoint(path)
    found, callbacks = state.get("state_dict"), state.get("callbacks")
    if not isinstance(found, Mapping) or not isinstance(callbacks, Mapping):
        raise ConfigError(f"init_from={path} is not a checkpoint of a training; give a run, or a file in its checkpoints/.")
    parameters = dict(model.named_parameters())
    own = {name: value for name, value in model.state_dict().items() if name in parameters or name.startswith("net.")}
    if differing := first_difference((name, found.get(name), tensor) for name, tensor in own.items()):
        raise misfit(path, differing)
    if more := next((name for name in found if str(name).startswith("net.") and name not in own), None):
        raise misfit(path, f"{more} is there and not in the model")
    weights: dict[str, Any] = {name: found[name] for name in own}
    averages = averages_in(callbacks, parameters, path)
    model.load_state_dict(weights | averages, strict=False)
    if ranks.rank() == 0:
        kind = "averaged" if averages else "raw, as it has no averages"
        log.info("weights from %s (step %s, %s)", path, state.get("global_step"), kind)
    return path


def checkpoint_of(source: str, runs_dir: str) -> Path:
    """The checkpoint that `init_from` names."""
    if not isinstance(source, str) or not source:
        raise ConfigError(f"init_from must be a run, `latest` or a checkpoint, not {source!r}.")
    if Path(source).is_file():
        return Path(source).absolute()
    if source != "latest" and not Path(source).exists():
        raise ConfigError(f"init_from={source} does not exist; give a run, `latest`, or a file in a run's checkpoints/.")
    return directory.find_checkpoint(directory.find_run(source, runs_dir, trained=True), "last")


def averages_in(callbacks: Mapping[str, Any], parameters: "Mapping[str, Tensor]", path: Path) -> "dict[str, Tensor]":
    """The averaged weights of a checkpoint by their names; none where it has none. ConfigError where they do not fit."""
    kept = callbacks.get("EMA")
    averages = kept.get("averages") if isinstance(kept, Mapping) else None
    if not isinstance(averages, list) or not averages:
        return {}
    names = [name for name, parameter in parameters.items() if parameter.is_floating_point()]
    if len(names) != len(averages):
        raise misfit(path, f"it has {len(averages)} averaged weights and the model {len(names)}")
    found = dict(zip(names, averages, strict=True))
    pairs = ((f"the average of {name}", average, parameters[name]) for name, average in found.items())
    if differing := first_difference(pairs):
        raise misfit(path, differing)
    return found


def misfit(path: Path, reason: str) -> ConfigError:
    """The sentence for weights of another model."""
    return ConfigError(f"init_from={path} does not fit the model ({reason}); choose model and net as they were there.")


def freeze(model: "Method") -> None:
    """Take the parameters that `model.freeze` names out of the training.

    Raises:
        ConfigError: a pattern matches none, or all are matched.
    """
    parameters = dict(model.named_parameters())
    for pattern in model.frozen:
        matched = [name for name in parameters if fnmatchcase(name, pattern)]
        if not matched:
            hint = did_you_mean(pattern, parameters) or f"; they are {', '.join(list(parameters)[:3])}, ..."
            raise ConfigError(f"model.freeze: {pattern} matches no weight of the model{hint}")
        for name in matched:
            parameters[name].requires_grad_(False)
    if model.frozen and not any(parameter.requires_grad for parameter in parameters.values()):
        raise ConfigError(f"model.freeze={model.frozen} leaves no weights to train; give fewer patterns.")


def frozen_count(model: "Method") -> int:
    """How many numbers `model.freeze` keeps as they are."""
    patterns = model.frozen
    return sum(p.numel() for n, p in model.named_parameters() if any(fnmatchcase(n, pattern) for pattern in patterns))
