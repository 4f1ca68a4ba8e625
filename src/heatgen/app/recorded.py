"""What was measured of a run, told to the loggers of its training."""

import fcntl
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable

from omegaconf import DictConfig

from heatgen.app.build import instantiate

log = logging.getLogger("heatgen")
OURS = "heatgen.logger."  # whose loggers can go on with the log of a run that has ended


@runtime_checkable
class ResultLogger(Protocol):
    """A logger that goes on with the log of a run that has ended."""

    def log_result(self, values: Mapping[str, float], step: int) -> None:
        """Log what was measured of the run after so many steps."""

    def finalize(self, status: str) -> None:
        """Close it."""


def log_result(
    run_dir: Path, config: DictConfig, mode: str, values: Mapping[str, float], step: int, trust: bool = False
) -> None:
    """Add what was measured to a run's W&B run, TensorBoard log and MLflow run, where its training had such.

    What a logger cannot take is a note, as the result is written already.

    Args:
        run_dir: the run.
        config: of the run.
        mode: by which mode, and variant; the numbers are MODE/NAME.
        values: what was measured; those that are not finite are left out.
        step: how many optimizer steps the weights had.
        trust: whether it may go where the run's config says; else only to files, or where this user's environment says.
    """
    nodes = [node for node in config.logger.values() if isinstance(node, DictConfig)]
    nodes = [node for node in nodes if str(node.get("_target_")).startswith(OURS)]
    named = {f"{mode}/{name}": value for name, value in values.items() if math.isfinite(value)}
    place = os.open(run_dir, os.O_RDONLY)
    try:
        fcntl.flock(place, fcntl.LOCK_EX)  # W&B names its folders by the second
        for node in nodes if named else ():
            if not trust and goes_elsewhere(node):
                log.warning(
                    "Note: %s is not told, as the run's config has it sent away; trust=true allows it.", node._target_
                )
                continue
            try:
                logger = instantiate(node, folder=str(run_dir))
                if isinstance(logger, ResultLogger):
                    logger.log_result(named, step)
                    logger.finalize("success")
            except Exception as error:  # of a service that is away, or whatever it raises
                log.warning("Note: %s did not take the result: %s", node._target_, str(error).split("\n")[0])
    finally:
        os.close(place)


def goes_elsewhere(node: DictConfig) -> bool:
    """Whether a logger of a run's config, who may be a stranger's, sends what it is told where this user did not say."""
    server = node.get("tracking_uri")
    online = node.get("offline") is False and os.environ.get("HEATGEN_WANDB_OFFLINE", "true").lower() != "false"
    return online or (server is not None and server != os.environ.get("MLFLOW_TRACKING_URI"))


def step_of(checkpoint: Path) -> int:
    """How many optimizer steps the weights of a checkpoint had; 0 for those of what is not trained."""
    import torch

    return int(torch.load(checkpoint, map_location="cpu", weights_only=True, mmap=True).get("global_step", 0))
