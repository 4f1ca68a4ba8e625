"""From a config to a trained model, samples and numbers: the only file that knows Hydra.

torch and lightning take seconds to import, so they are imported where they are used: --help and wrong input answer
at once.
"""

import functools
import inspect
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from heatgen import check, directory, explain, launch
from heatgen.check import ConfigError

log = logging.getLogger("heatgen")
wants_traceback = False  # set by `entry`
Result = TypeVar("Result")
OmegaConf.register_new_resolver("heatgen.run_directory", directory.run_directory, replace=True)
OmegaConf.register_new_resolver("heatgen.groups", explain.describe_groups, replace=True)


def entry(main: Callable[[], Any]) -> None:
    """Run an entry point; a user's mistake ends in one sentence and exit code 1 (HYDRA_FULL_ERROR=1: the traceback)."""
    global wants_traceback
    wants_traceback = "HYDRA_FULL_ERROR" in os.environ
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that Hydra raises, and we explain
    try:
        main()
    except Exception as error:
        refuse(error)
    finally:
        if not wants_traceback:
            os.environ.pop("HYDRA_FULL_ERROR", None)


def refuse(error: Exception) -> NoReturn:
    """End with one sentence and exit code 1 for a user's mistake; raise anything else."""
    sentence = None if wants_traceback else explain.explain(error, Path(sys.argv[0]).stem)
    if sentence is None:
        raise error
    print(f"Error: {sentence}", file=sys.stderr)
    sys.exit(1)


def verb(function: Callable[[DictConfig], Result]) -> Callable[[DictConfig], Result]:
    """A job of an entry point: alone it ends by itself where it fails; in a sweep the other jobs go on first."""

    @functools.wraps(function)
    def job(cfg: DictConfig) -> Result:
        try:
            return function(cfg)
        except Exception as error:
            if HydraConfig.get().mode == RunMode.RUN:
                refuse(error)
            log.error("failed: %s", explain.explain(error, Path(sys.argv[0]).stem) or repr(error))
            raise

    return job


# building ---------------------------------------------------------------------------------------------------------------


def make(node: DictConfig, **objects: Any) -> Any:
    """What a config describes; `objects` are arguments that are already built. ConfigError for an unknown option."""
    factory = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    try:
        return factory(**objects)
    except TypeError as error:
        unknown = re.search(r"(\w+)\(\) got an unexpected keyword argument '(\w+)'", str(error))
        if unknown is None:
            raise
        options = list(inspect.signature(factory.func).parameters)
        hint = check.suggest(unknown[2], options)
        raise ConfigError(f"{node._target_} has no option {unknown[2]!r}{hint or '; remove it.'}") from error


def make_sampler(node: DictConfig) -> Any:
    """The sampler of a config: a function (model, u_K, levels, generator, on_step) -> u_0."""
    return hydra.utils.instantiate(node, _partial_=True, _convert_="all")


def build(cfg: DictConfig) -> tuple[Any, Any]:
    """The model and the data of a training config, wired together and checked."""
    data_config = OmegaConf.create({k: v for k, v in cfg.data.items() if k != "suggest"})
    data = make(data_config)
    process = make(cfg.forward)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        process.validate()
    if launch.rank() == 0:
        for warning in caught:
            log.warning("Note: %s", warning.message)
    sampler = make_sampler(cfg.sampler)
    model = make(cfg.model, process=process, net=make(cfg.net), sampler=sampler)
    lacking = [name for name in sampler.func.currency if not hasattr(model, name)]
    if lacking:
        raise ConfigError(f"sampler={sampler.func.__name__} needs {lacking[0]}, which {cfg.model._target_} lacks.")
    return model, data


def load(run: Path, checkpoint: str = "last", weights: str = "ema", overrides: dict[str, Any] | None = None) -> Any:
    """The model, data and config of a run, as after training. weights: ema | raw; overrides: values to change first.

    ConfigError for a run that cannot be read or a checkpoint that is missing, cut short or of another model.
    """
    check.choice("weights", weights, ("ema", "raw"))
    cfg = read_config(run)
    for key, value in (overrides or {}).items():
        OmegaConf.update(cfg, key, value, force_add=True)
    state = read_checkpoint(find_checkpoint(run, checkpoint))
    model, data = build(cfg)
    try:
        model.load_state_dict(state["state_dict"])
        if weights == "ema" and "EMA" in state["callbacks"]:
            from heatgen.callback.ema import EMA

            averages = EMA()
            averages.load_state_dict(state["callbacks"]["EMA"])
            averages.copy_to(model)
    except (KeyError, RuntimeError) as error:
        raise ConfigError(f"The checkpoint of {run} does not fit its config.yaml; was either replaced?") from error
    return model.eval(), data, cfg


def read_config(run: Path) -> DictConfig:
    """The config.yaml of a run. ConfigError if it cannot be read."""
    try:
        cfg = OmegaConf.load(run / "config.yaml")
    except Exception as error:
        raise ConfigError(f"{run / 'config.yaml'} cannot be read ({type(error).__name__}); give another run.") from error
    assert isinstance(cfg, DictConfig)
    return cfg


def find_checkpoint(run: Path, checkpoint: str) -> Path:
    """The file of a run's checkpoint `last` or `best`, or `checkpoint` itself where it is a file."""
    path = run / "checkpoints" / f"{checkpoint}.ckpt" if checkpoint in ("last", "best") else Path(checkpoint)
    if not path.is_file():
        raise ConfigError(f"The checkpoint {path} is missing; train the run further, or give checkpoint=FILE.")
    return path


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The content of a checkpoint, tensors and plain numbers only. ConfigError if it is cut short or foreign."""
    import pickle

    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, pickle.UnpicklingError) as error:
        raise ConfigError(f"{path} is cut short or not a checkpoint; use checkpoint=best or another run.") from error


# training ---------------------------------------------------------------------------------------------------------------


@verb
def train(cfg: DictConfig) -> float | None:
    """Train the model of a config in its run directory; the best validation loss, or None where several processes ran."""
    hc = HydraConfig.get()
    run, overrides = Path(hc.runtime.output_dir), list(hc.overrides.task)
    if cfg.resume:
        cfg = resumed(run, overrides, hc.runtime.choices)
    count = launch.count_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    if count > 1 and not launch.is_child():
        finish(launch.launch([*child_arguments(hc, run), *overrides], count, run))
        return None

    import lightning as L

    quiet_lightning()
    L.seed_everything(check.integer("seed", cfg.seed, minimum=0), verbose=False)
    model, data = build(cfg)
    callbacks = {name: make(node) for name, node in cfg.callback.items() if node is not None}
    if launch.rank() == 0:
        data.prepare_data()
        if not cfg.resume and (run / "config.yaml").exists():
            raise ConfigError(f"{run} already holds a run; resume it with resume={run}, or start again.")
        directory.describe_run(run, OmegaConf.to_yaml(cfg, resolve=True), overrides)
        log.info("run: %s", run)
    trainer = make_trainer(cfg, run, data, list(callbacks.values()))
    checkpoint = run / "checkpoints" / "last.ckpt"
    if cfg.resume:
        read_checkpoint(find_checkpoint(run, "last"))
    trainer.fit(model, datamodule=data, ckpt_path=str(checkpoint) if cfg.resume else None, weights_only=True)
    stopped = callbacks["checkpoints"].signal if "checkpoints" in callbacks else 0
    if stopped:
        log.info("stopped by a signal at step %d; go on with: python train.py resume=%s", trainer.global_step, run)
        sys.exit(128 + stopped)
    best = float(callbacks["checkpoints"].best) if "checkpoints" in callbacks else None
    log.info("trained %d steps, best val/loss %s; next: python sample.py run=%s", trainer.global_step, best, run)
    return best


def resumed(run: Path, overrides: list[str], choices: Any) -> DictConfig:
    """The config of a run that goes on: its own, with the values (not the groups) of this command line."""
    find_checkpoint(run, "last")
    cfg = read_config(run)
    OmegaConf.set_struct(cfg, True)
    for override in overrides:
        key, value = override.split("=", 1)
        if key in choices:
            raise ConfigError(f"resume keeps the run's own {key}; remove {override}, or start a new run with it.")
        try:
            OmegaConf.update(cfg, key, OmegaConf.from_dotlist([f"value={value}"]).value)
        except Exception as error:
            raise ConfigError(f"{key} is not a key of the resumed run's config; remove {override}.") from error
    return cfg


def make_trainer(cfg: DictConfig, run: Path, data: Any, callbacks: list[Any]) -> Any:
    """The Lightning Trainer of a config, writing to `run`."""
    from lightning.fabric.utilities.exceptions import MisconfigurationException

    from heatgen.callback.checkpoints import AtomicIO

    options: dict[str, Any] = OmegaConf.to_container(cfg.trainer, resolve=True)  # type: ignore[assignment]
    options.pop("_target_")
    epochs = options.pop("max_epochs")
    if epochs is not None:
        batch = data.batch_size * options["accumulate_grad_batches"]
        options["max_steps"] = -(-check.integer("trainer.max_epochs", epochs, 1) * len(data.images("train")) // batch)
    for key in ("max_steps", "val_check_interval", "accumulate_grad_batches", "log_every_n_steps"):
        options[key] = check.integer(f"trainer.{key}", options[key], minimum=1)
    if options["gradient_clip_val"] is not None:
        check.number("trainer.gradient_clip_val", options["gradient_clip_val"], minimum=0)
    rank_zero = launch.rank() == 0
    loggers = [make(node, folder=str(run)) for node in cfg.logger.values()] if rank_zero else []
    fixed = {
        "default_root_dir": str(run),
        "callbacks": callbacks,
        "logger": loggers or False,
        "plugins": [AtomicIO()],
        "max_epochs": -1,
        "check_val_every_n_epoch": None,
        "num_sanity_val_steps": 0,
        "use_distributed_sampler": False,
        "enable_checkpointing": False,
        "enable_model_summary": False,
    }
    try:
        return make(OmegaConf.create({"_target_": cfg.trainer._target_, **options}), **fixed)
    except (ValueError, RuntimeError, TypeError, MisconfigurationException) as error:
        culprits = [f"trainer.{k}={v}" for k, v in options.items() if isinstance(v, str) and v in str(error)]
        raise ConfigError(f"{(culprits or ['trainer'])[0]} is refused by Lightning: {error}".split("\n")[0]) from error


def child_arguments(hc: Any, run: Path) -> list[str]:
    """What makes a process of several do this job, alone and in this directory."""
    flags = ["--config-name", hc.job.config_name]
    return [*flags, f"hydra.run.dir='{run}'", "hydra.output_subdir=null", "hydra.mode=RUN"]


def finish(code: int) -> None:
    """End with the exit code of failed processes; go on where there was none."""
    if code:
        sys.exit(code)


def quiet_lightning() -> None:
    """Hide Lightning's advertisements and warnings that do not concern a user."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        "not resumable",
        "smaller than the logging interval",
        "does not have many workers",
        "LeafSpec",
        "torch.jit",
    ):
        warnings.filterwarnings("ignore", message=f".*{message}.*")


# sampling and measuring -------------------------------------------------------------------------------------------------


def open_devices(cfg: DictConfig) -> Any:
    """The processes to sample and measure on; ends here in the process that only waits for them."""
    from heatgen.devices import Devices

    options: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    return Devices(**{key: options[key] for key in ("accelerator", "devices", "num_nodes", "precision")})


def launched(cfg: DictConfig, folder: Path) -> bool:
    """Whether the job has been done by several processes that this one started and waited for."""
    count = launch.count_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    if count == 1 or launch.is_child():
        return False
    hc = HydraConfig.get()
    finish(launch.launch([*child_arguments(hc, Path(".")), *hc.overrides.task], count, folder))
    return True


def load_for(cfg: DictConfig, run: Path, devices: Any) -> tuple[Any, Any, DictConfig]:
    """The run's model on its device, with the delta and prior_std that were asked for."""
    overrides = {f"model.{key}": cfg[key] for key in ("delta", "prior_std") if cfg[key] is not None}
    model, data, run_config = load(run, cfg.checkpoint, cfg.weights, overrides)
    return model.to(devices.device), data, run_config


@verb
def sample(cfg: DictConfig) -> None:
    """Sample from a run; see conf/sample.yaml."""
    run = directory.find_run(cfg.run, cfg.runs_dir)
    for key in ("n", "num_points", "batch_size"):
        check.integer(key, cfg[key], minimum=1)
    for key in ("same_init", "share_noise", "interpolate"):
        check.boolean(key, cfg[key])
    check.integer("seed", cfg.seed, minimum=0)
    if launched(cfg, run):
        return
    from heatgen import draw

    quiet_lightning()
    devices = open_devices(cfg)
    model, data, _ = load_for(cfg, run, devices)
    with devices.fabric.rank_zero_first():
        data.prepare_data()
    folder = draw.draw(model, data, devices, run / "samples", cfg)
    if devices.first:
        log.info("samples: %s", folder)


@verb
def evaluate(cfg: DictConfig) -> None:
    """Measure a run, or a data set alone; see conf/evaluate.yaml."""
    if cfg.run is None and cfg.get("data") is None:
        raise ConfigError("run=null measures a data set alone; say which with data=NAME.")
    check.integer("batch_size", cfg.batch_size, minimum=1)
    check.integer("seed", cfg.seed, minimum=0)
    mode, choices = HydraConfig.get().runtime.choices["mode"], HydraConfig.get().runtime.choices
    alone = cfg.run is None
    run = Path(cfg.runs_dir) / f"data-{choices.get('data')}" if alone else directory.find_run(cfg.run, cfg.runs_dir)
    if launched(cfg, run):
        return
    from heatgen.metric.metric import Subject
    from heatgen.metric.table import report

    quiet_lightning()
    metric = make(cfg.metric)
    devices = open_devices(cfg)
    if alone:
        model, run_config = None, cfg
        data = make(OmegaConf.create({k: v for k, v in cfg.data.items() if k != "suggest"}))
        name = choices["data"]
    else:
        model, data, run_config = load_for(cfg, run, devices)
        name = run_config.name.rsplit("-", 1)[-1]
    with devices.fabric.rank_zero_first():
        data.prepare_data()
    result = metric(Subject(model, data, name, devices, cfg.n, cfg.batch_size, cfg.seed))
    if devices.first:
        experiment = cfg.experiment_name or run_config.get("experiment_name") or "default"
        report(result, mode, run, cfg.runs_dir, str(experiment), parameter(cfg))


def parameter(cfg: DictConfig) -> tuple[str, Any] | None:
    """The name and value of `param_name`, which stands beside the results in the experiment's table."""
    if cfg.param_name is None:
        return None
    value = OmegaConf.select(cfg, cfg.param_name)
    if value is None:
        raise ConfigError(f"param_name={cfg.param_name} is not a key that has a value; give one, such as delta.")
    return cfg.param_name, value
