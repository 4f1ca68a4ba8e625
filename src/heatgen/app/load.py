"""A run as it was after training: its model, its data and its config."""

import logging
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.app.build import build
from heatgen.check import ConfigError
from heatgen.runtime import directory

log = logging.getLogger("heatgen")


def load(run: Path, checkpoint: str = "last", weights: str = "ema", overrides: dict[str, Any] | None = None) -> Any:
    """The model, data and config of a run, as after training. weights: ema | raw; overrides: values to replace first.

    ConfigError for a run that cannot be read or a checkpoint that is missing, cut short or of another model.
    """
    from heatgen.callback.ema import EMA

    check.choice("weights", weights, ("ema", "raw"))
    cfg = directory.read_config(run)
    for key, value in (overrides or {}).items():
        OmegaConf.update(cfg, key, value, force_add=True, merge=False)
    state = directory.read_checkpoint(directory.find_checkpoint(run, checkpoint))
    model, data = build(cfg)
    try:
        model.load_state_dict(state["state_dict"])
        if not model.trainable:
            pass  # exact answers
        elif weights == "ema" and "EMA" not in state["callbacks"]:
            log.warning("Note: the run has no averaged weights (callback.ema was off); its raw weights are used.")
        elif weights == "ema":
            averages = EMA()
            averages.load_state_dict(state["callbacks"]["EMA"])
            averages.copy_to(model)
    except (KeyError, RuntimeError) as error:
        raise ConfigError(f"The checkpoint of {run} does not fit its config.yaml; was either replaced?") from error
    return model.eval(), data, cfg


def load_for(cfg: DictConfig, run: Path, devices: Any) -> tuple[Any, Any, DictConfig]:
    """The run's model on its device with the reverse noise that was asked for, and its data, ready."""
    overrides = {f"model.{key}": cfg[key] for key in ("delta", "delta_mode", "prior_std") if cfg[key] is not None}
    settings = directory.read_config(run).model
    for key in overrides:
        if key.removeprefix("model.") not in settings:
            raise ConfigError(f"{key.removeprefix('model.')} is not a setting of {settings._target_}; remove it.")
    if "delta" in settings and (cfg.delta is None) != (
        cfg.delta_mode is None
    ):  # what is asked for replaces what the run had, whichever it was
        overrides |= {"model.delta": None} if cfg.delta is None else {"model.delta_mode": "constant"}
    if cfg.get("sampler") is not None:
        overrides["sampler"] = OmegaConf.to_container(cfg.sampler, resolve=True)
    model, data, run_config = load(run, cfg.checkpoint, cfg.weights, overrides)
    if not model.uses_sampler and "sampler" in overrides:
        raise ConfigError(f"The model of {run.name} has its own way back, without a sampler; remove sampler=.")
    with devices.fabric.rank_zero_first():
        data.prepare_data()
    with devices.autocast():
        model.to(devices.device).calibrate(data)
    return model, data, run_config
