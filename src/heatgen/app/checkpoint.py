"""What a checkpoint must hold to fit a model: the same checks for sampling, measuring and training on."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from heatgen.callback.ema import EMA
from heatgen.check import ConfigError, first_difference
from heatgen.model.module import Method

log = logging.getLogger("heatgen")
MOMENTS = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer")  # what optimizers keep in the shape of a weight


def check_weights(state: Mapping[str, Any], model: Method, path: Path) -> None:
    """ConfigError unless the weights and averages of a checkpoint are those of a model, by name and shape.

    Args:
        state: the content of a checkpoint, as `directory.read_checkpoint` gives it.
        model: as its config builds it.
        path: of the checkpoint, for the sentence.
    """
    own, found = model.state_dict(), state.get("state_dict")
    if not isinstance(found, Mapping) or not isinstance(state.get("callbacks"), Mapping):
        raise misfit(path, "it holds no state_dict and callbacks")
    if alone := sorted(map(str, own.keys() ^ found.keys())):
        where = "the model alone" if alone[0] in own else "the checkpoint alone"
        raise misfit(path, f"{alone[0]} is in {where}")
    if differing := first_difference((name, found[name], tensor) for name, tensor in own.items()):
        raise misfit(path, differing)
    if (averages := state["callbacks"].get("EMA")) is not None:
        check_averages(averages, EMA.weights(model), path)


def check_averages(state: object, weights: Sequence[Tensor], path: Path) -> None:
    """ConfigError unless the state of EMA holds an average of each weight."""
    averages = state.get("averages") if isinstance(state, Mapping) else None
    if not isinstance(state, Mapping) or not isinstance(state.get("updates"), int) or not isinstance(averages, list):
        raise misfit(path, "its averaged weights are no list")
    if len(averages) not in (0, len(weights)):
        raise misfit(path, f"it holds {len(averages)} averaged weights of {len(weights)}")
    pairs = zip(averages, weights, strict=False)
    if differing := first_difference((f"averaged weight {i}", *pair) for i, pair in enumerate(pairs)):
        raise misfit(path, differing)


def misfit(path: Path, reason: str) -> ConfigError:
    """The sentence for a checkpoint of another model."""
    return ConfigError(f"{path} does not fit the config.yaml of its run ({reason}); was either replaced?")


def fit(model: Method, state: Mapping[str, Any], path: Path, weights: str = "ema") -> None:
    """Give a model the weights of a checkpoint; `ema` where there are averages, else the raw ones, with a note.

    ConfigError where they do not fit.
    """
    check_weights(state, model, path)
    model.load_state_dict(state["state_dict"])
    if not model.trainable or weights == "raw":
        return  # exact answers have no averages
    averages = state["callbacks"].get("EMA")
    if averages is None or not averages["averages"]:
        log.warning("Note: the run has no averaged weights (callback.ema was off); its raw weights are used.")
        return
    ema = EMA()
    ema.load_state_dict(averages)
    ema.copy_to(model)


def check_training(state: Mapping[str, Any], model: Method, path: Path) -> None:
    """ConfigError unless a training can go on from a checkpoint: as `check_weights`, and by its optimizer and counts."""
    check_weights(state, model, path)
    if not model.trainable:
        return
    kinds = {"epoch": int, "global_step": int, "loops": Mapping, "optimizer_states": list, "lr_schedulers": list}
    for key, kind in kinds.items():
        if not isinstance(state.get(key), kind):
            raise misfit(path, f"a training cannot go on from it, as its {key} is {type(state.get(key)).__name__}")
    trained = [weight for weight in model.parameters() if weight.requires_grad]
    for optimizer in state["optimizer_states"]:
        moments = optimizer.get("state") if isinstance(optimizer, Mapping) else None
        groups = optimizer.get("param_groups") if isinstance(optimizer, Mapping) else None
        if not isinstance(moments, Mapping) or not isinstance(groups, list):
            raise misfit(path, "its optimizer_states hold no state and param_groups")
        numbers = [number for group in groups if isinstance(group, Mapping) for number in group.get("params", ())]
        if len(numbers) != len(trained) or not set(moments) <= set(numbers):
            raise misfit(path, f"its optimizer has {len(numbers)} weights and the model {len(trained)}")
        for number, weight in zip(numbers, trained, strict=True):
            kept = [(name, moment) for name, moment in moments.get(number, {}).items() if name in MOMENTS]
            if differing := first_difference((f"{name} of weight {number}", moment, weight) for name, moment in kept):
                raise misfit(path, differing)
