"""A job of an entry point: the wrapper that explains what fails, and its several processes."""

import functools
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from heatgen.app import mistakes, options, resolvers, sweep
from heatgen.app.options import SearchPath
from heatgen.app.plain import plain
from heatgen.app.quoting import quoted
from heatgen.app.requests import needed
from heatgen.check import ConfigError
from heatgen.runtime import children, explain, launch, ranks, signals
from heatgen.runtime.launch import DeviceRequest

log = logging.getLogger("heatgen")
Result = TypeVar("Result")
NEEDED = {
    "train": ("data", "forward", "net", "model", "trainer"),
    "sample": ("trainer",),
    "evaluate": ("metric", "trainer"),
    "pack": ("data",),
}
resolvers.register()  # here, as a launcher's processes import no more than a job


def task_wrapper(function: Callable[[DictConfig], Result]) -> Callable[[DictConfig], Result]:
    """A job of an entry point: alone it ends by itself where it fails; in a sweep the other jobs go on first."""

    @functools.wraps(function)
    def job(cfg: DictConfig) -> Result:
        try:
            if in_sweep():
                children.begin_job()
            options.check_choices(choices())
            refuse_missing(cfg)
            return function(cfg)
        except Exception as error:
            if not in_sweep():
                explain.refuse(error, mistakes.sentence(error))
            log.error("failed: %s", mistakes.sentence(error) or repr(error))
            raise
        except signals.Stopped as stop:
            if not elsewhere(HydraConfig.get()):
                raise
            raise ConfigError(f"The job was stopped by {signals.name_of(stop.number)}.") from stop  # its worker goes on
        finally:
            if elsewhere(HydraConfig.get()):
                signals.note()  # what comes now is for the next job

    return job


def elsewhere(hc: HydraConf) -> bool:
    """Whether the jobs of a sweep are done in other processes, by a launcher."""
    return bool(hc.mode == RunMode.MULTIRUN and launcher_of(hc) != "basic_launcher")


def launcher_of(hc: HydraConf) -> str:
    """The name of the module of a sweep's launcher."""
    return str(hc.launcher._target_).split(".")[-2]


def begin_sweep(hc: HydraConf) -> None:
    """What a signal does to a sweep: processes of this machine that do its jobs get it, and the user hears how to go on."""
    folder = Path(hc.sweep.dir)
    signals.advise(lambda: f"go on with: {sweep.advised(folder)}")
    if launcher_of(hc) == "joblib_launcher":
        children.hand_on_to_workers(own=True)
    elif str(hc.launcher._target_).endswith(".LocalLauncher"):
        children.hand_on_to_workers(own=False)


def in_sweep() -> bool:
    """Whether this job is one of a sweep."""
    return bool(HydraConfig.get().mode == RunMode.MULTIRUN)


def choices() -> dict[str, str | None]:
    """The option of each group that was chosen for this job, by its name, or with its package as GROUP@PACKAGE."""
    return dict(HydraConfig.get().runtime.choices)


def refuse_missing(cfg: DictConfig) -> None:
    """ConfigError for a group that a user deleted with ~GROUP and no job can do without."""
    for group in NEEDED.get(str(HydraConfig.get().job.config_name), ()):
        if group not in cfg:
            group = "mode" if group == "metric" else group
            raise ConfigError(f"{group} cannot be left out; choose {group}=NAME ({', '.join(options.options_of(group))}).")


def refuse_unread(cfg: DictConfig) -> None:
    """ConfigError for what a user added to the config of sample or evaluate, and nothing reads."""
    hc = HydraConfig.get()
    verb = str(hc.job.config_name)
    words = [word for word in hc.overrides.task if word.startswith("+")]
    if not words or not (options.CONF / f"{verb}.yaml").is_file():  # a primary config of the user's own
        return
    known = {*OmegaConf.load(options.CONF / f"{verb}.yaml"), *options.groups_of(verb), "metric"}
    for word in words:
        key = word.lstrip("+").partition("=")[0]
        if key.split(".")[0] not in known:
            raise ConfigError(f"Nothing reads {key}; remove {word}.")


def devices_of(cfg: DictConfig) -> DeviceRequest:
    """The devices that a config asks for in its node `trainer`; its precision may be auto."""
    return DeviceRequest(**needed(plain(cfg.trainer), ("accelerator", "devices", "num_nodes", "precision")))


def launched(verb: str, devices: DeviceRequest, folder: Path, run_dir: Path = Path(".")) -> bool:
    """Whether the job has been done by several processes that this one started and waited for.

    It ends with the exit code of those that failed, which have said why.

    Args:
        verb: whose job it is.
        devices: a process for each of them.
        folder: where the processes' logs go.
        run_dir: the folder that Hydra gave the job.
    """
    if devices.count == 1 or ranks.is_child():
        return False
    hc = HydraConfig.get()
    alone = [f"hydra.run.dir={quoted(str(run_dir))}", "hydra.output_subdir=null", "hydra.mode=RUN"]
    config = ["--config-name", str(hc.job.config_name), *SearchPath.current().arguments()]
    code = launch.launch(verb, [*config, *alone, *hc.overrides.task], devices.count, folder)
    if code >= 128 or (code and not in_sweep()):
        sys.exit(code)
    if code:  # the other jobs go on first
        raise ConfigError(f"The processes of a job ended with exit code {code}; it says why above.")
    return True
