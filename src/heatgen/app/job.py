"""A job of an entry point: the wrapper that explains what fails, its devices, and its several processes."""

import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from heatgen.check import ConfigError
from heatgen.runtime import directory, explain, launch

log = logging.getLogger("heatgen")
Result = TypeVar("Result")
OmegaConf.register_new_resolver("heatgen.run_directory", directory.run_directory, replace=True)
OmegaConf.register_new_resolver("heatgen.groups", explain.describe_groups, replace=True)


def task_wrapper(function: Callable[[DictConfig], Result]) -> Callable[[DictConfig], Result]:
    """A job of an entry point: alone it ends by itself where it fails; in a sweep the other jobs go on first."""

    @functools.wraps(function)
    def job(cfg: DictConfig) -> Result:
        try:
            explain.check_choices(HydraConfig.get().runtime.choices)
            return function(cfg)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.RUN:
                explain.refuse(error)
            log.error("failed: %s", explain.explain(error, function.__name__) or repr(error))
            raise

    return job


def in_sweep() -> bool:
    """Whether this job is one of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def launched(script: str, cfg: DictConfig, folder: Path, run_dir: Path = Path(".")) -> bool:
    """Whether the job of a script has been done by several processes that this one started and waited for."""
    count = launch.count_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    if count == 1 or launch.is_child():
        return False
    hc = HydraConfig.get()
    finish(launch.launch(script, [*launch.child_arguments(hc, run_dir), *hc.overrides.task], count, folder))
    return True


def finish(code: int) -> None:
    """End with the exit code of failed processes, which have said why; in a sweep the other jobs go on first."""
    if code >= 128 or (code and not in_sweep()):
        sys.exit(code)
    if code:
        raise ConfigError(f"The processes of a job ended with exit code {code}; it says why above.")


def open_devices(cfg: DictConfig) -> Any:
    """The processes to sample and measure on."""
    from heatgen.app.trainer import quiet_lightning
    from heatgen.runtime.devices import Devices

    quiet_lightning()
    options: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    return Devices(**{key: options[key] for key in ("accelerator", "devices", "num_nodes", "precision")})
