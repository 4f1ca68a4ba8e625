"""A run as it was after training: its model, its data and its config."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.app.build import build
from heatgen.app.options import options_of
from heatgen.app.requests import LoadRequest
from heatgen.check import ConfigError
from heatgen.runtime import directory

if TYPE_CHECKING:
    from heatgen.data.module import DataModule
    from heatgen.model.module import Method
    from heatgen.runtime.devices import Devices


class Run(NamedTuple):
    """A trained run: its model, the data it was trained on, and its config."""

    model: "Method"
    data: "DataModule"
    config: DictConfig


def read_config(run_dir: Path) -> DictConfig:
    """The config.yaml of a run. ConfigError if it cannot be read."""
    try:
        cfg = OmegaConf.load(run_dir / "config.yaml")
    except Exception as error:
        raise ConfigError(f"{run_dir / 'config.yaml'} cannot be read ({type(error).__name__}); give another run.") from error
    if not isinstance(cfg, DictConfig):
        raise ConfigError(f"{run_dir / 'config.yaml'} is not the config of a run; give another run.")
    if "suggest" in (cfg.get("data") or {}):
        raise ConfigError(
            f"{run_dir} was made by heatgen 0.1, whose options had other names; use that version, or train again."
        )
    return cfg


def changed(cfg: DictConfig, request: LoadRequest) -> DictConfig:
    """The config of a run with what a request replaces. ConfigError for what its model does not have."""
    wanted = {key: getattr(request, key) for key in ("delta", "delta_mode", "prior_std")}
    wanted = {key: value for key, value in wanted.items() if value is not None}
    for key in wanted:
        if key not in cfg.model:
            raise ConfigError(f"{key} is not a setting of {cfg.model._target_}; remove it.")
    if "delta" in cfg.model and ("delta" in wanted) != ("delta_mode" in wanted):  # one replaces the other
        wanted |= {"delta_mode": "constant"} if "delta" in wanted else {"delta": None}
    for key, value in wanted.items():
        OmegaConf.update(cfg, f"model.{key}", value, force_add=True)
    if request.sampler is not None:
        OmegaConf.update(cfg, "sampler", request.sampler.node, force_add=True, merge=False)
    for key, value in request.data.items():
        if key not in cfg.data:
            raise ConfigError(f"data.{key} is not a setting of {cfg.data._target_}, the run's data; remove it.")
        cfg.data[key] = value
    return cfg


def moved(request: LoadRequest) -> dict[str, object]:
    """What a request says of a run's data that is not what its config.yaml says, for the facts of a result."""
    own = read_config(request.run_dir).data
    return {f"data.{key}": value for key, value in request.data.items() if value != own.get(key)}


def data_name(cfg: DictConfig) -> str:
    """What the config of a run calls its data, which their statistics and classifiers are kept under.

    A run of before there was the key says it at the end of its name, unless that was given; then the class's file does.
    """
    if cfg.get("data_name") is not None:
        return str(cfg.data_name)
    last = str(cfg.get("name")).rsplit("-", 1)[-1]
    return last if last in options_of("data") else str(cfg.data._target_).split(".")[-2]


def restore(request: LoadRequest) -> Run:
    """A run as after training, with what the request replaces.

    Raises:
        ConfigError: the run cannot be read, its checkpoint is missing, cut short or of another model, or the request
            replaces what the model does not use.
    """
    from heatgen.app.checkpoint import fit

    run_dir = request.run_dir
    cfg = changed(read_config(run_dir), request)
    path = directory.find_checkpoint(run_dir, request.checkpoint)
    state = directory.read_checkpoint(path)
    model, data = build(cfg)
    if not model.uses_sampler and request.sampler is not None:
        raise ConfigError(f"The model of {run_dir.name} has its own way back, without a sampler; remove sampler=.")
    fit(model, state, path, request.weights)
    return Run(model.eval(), data, cfg)


def open_run(request: LoadRequest, devices: "Devices") -> Run:
    """A run that is ready to sample: on its device, its data there, and calibrated on them."""
    run = restore(request)
    with devices.fabric.rank_zero_first():
        run.data.prepare_data()
    with devices.autocast():
        run.model.to(devices.device).calibrate(run.data)
    if bad := check.first_nonfinite(run.model.state_dict()):
        raise ConfigError(
            f"The weights of {request.run_dir.name} give no finite answers on held-out data, where {bad} is measured; use "
            "another checkpoint, or train again with a lower optimizer.lr."
        )
    return run
