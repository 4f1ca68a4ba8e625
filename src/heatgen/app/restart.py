"""The checkpoint that a training goes on from: all that could be wrong with it, before anything of the run is written."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig

from heatgen import check
from heatgen.app.checkpoint import check_training, misfit
from heatgen.app.load import read_config
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.model.module import Method
from heatgen.runtime import directory


def restart(path: Path, cfg: DictConfig, model: Method, data: DataModule) -> int:
    """How many optimizer steps a run has done that goes on.

    Args:
        path: its checkpoint.
        cfg: its config, with the changes of this command line.
        model: that of the config.
        data: that of the config; it is told how many samples have been seen.

    Raises:
        ConfigError: the checkpoint does not fit the model, its optimizer or the number of steps.
    """
    state = directory.read_checkpoint(path)
    check_training(state, model, path)
    if not model.trainable:
        return 0
    check_counts(state, path)
    steps: int = state["global_step"]
    limit = cfg.trainer.max_steps
    if cfg.trainer.get("max_epochs") is None and isinstance(limit, int) and limit < steps:
        raise ConfigError(f"trainer.max_steps={limit} is less than the {steps} steps that the run has done; give more.")
    data.load_state_dict(samples_seen(state, data, path))
    check_optimizer(state["optimizer_states"][0], model)
    return steps


def check_counts(state: Mapping[str, Any], path: Path) -> None:
    """ConfigError unless a checkpoint says how far the training, its schedule and its best validation are."""
    try:
        progress = state["loops"]["fit_loop"]["epoch_loop.automatic_optimization.optim_progress"]
        whole = progress["optimizer"]["step"]["total"]["completed"] == state["global_step"] >= 0
        whole = whole and all(isinstance(schedule["last_epoch"], int) for schedule in state["lr_schedulers"])
        whole = whole and isinstance(state["callbacks"].get("Checkpoints", {"best": 0.0})["best"], float)
    except (KeyError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise misfit(path, "its counts of steps are not those of a training")


def samples_seen(state: Mapping[str, Any], data: DataModule, path: Path) -> dict[str, int]:
    """How many samples of the stream a checkpoint has seen, and in how many steps.

    One of before that was written has seen as many as the config of its run says.
    """
    steps, kept = state["global_step"], state.get(type(data).__qualname__)
    if kept is None:
        own = read_config(path.parents[1], trust=True)  # which has been read before, with less trust
        sizes = own.data.get("batch_size", data.batch_size), own.trainer.get("accumulate_grad_batches", 1)
        size, accumulate = (check.integer("data.batch_size", value, minimum=1) for value in sizes)
        return {"seen": steps * accumulate * size, "steps": steps}
    whole = isinstance(kept, Mapping) and all(isinstance(kept.get(key), int) for key in ("seen", "steps"))
    if not whole or kept["seen"] < 0 or kept["steps"] != steps:
        raise misfit(path, "it does not say how many samples have been seen")
    return dict(kept)


def check_optimizer(state: Mapping[str, Any], model: Method) -> None:
    """ConfigError unless an optimizer with the options of the config can go on from the state of the run's own.

    Args:
        state: of the optimizer in the checkpoint.
        model: whose optimizer makes a step of nothing on one of its weights to find out.
    """
    weight = next(p for p in model.parameters() if p.requires_grad)
    probe = torch.nn.Parameter(torch.zeros_like(weight), requires_grad=True)
    optimizer = model.build_optimizer([probe])
    options = {key: value for key, value in optimizer.param_groups[0].items() if key != "params"}
    group = state["param_groups"][0]
    first = group["params"][0]
    moments = {0: state["state"][first]} if first in state["state"] else {}
    probe.grad = torch.zeros_like(probe)
    try:
        optimizer.load_state_dict({"state": moments, "param_groups": [{**group, "params": [0]}]})
        optimizer.param_groups[0].update(options)
        optimizer.step()
    except Exception as error:  # optimizers keep what they like
        reason = f"{type(error).__name__}: {error}".split("\n")[0]
        raise ConfigError(
            f"optimizer cannot go on with these options from what the run's own has kept ({reason}); leave them as they "
            "were, or start a new run."
        ) from error
