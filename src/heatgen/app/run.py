"""From a config to a trained model, samples and numbers: the only file that knows Hydra.

torch and lightning take seconds to import, so they are imported where they are used: --help and wrong input answer
at once.
"""

import functools
import inspect
import logging
import math
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.check import ConfigError
from heatgen.runtime import directory, explain, launch

log = logging.getLogger("heatgen")
Result = TypeVar("Result")
OmegaConf.register_new_resolver("heatgen.run_directory", directory.run_directory, replace=True)
OmegaConf.register_new_resolver("heatgen.groups", explain.describe_groups, replace=True)


def verb(function: Callable[[DictConfig], Result]) -> Callable[[DictConfig], Result]:
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
        hint = check.did_you_mean(unknown[2], options)
        raise ConfigError(f"{node._target_} has no option {unknown[2]!r}{hint or '; remove it.'}") from error


def make_data(cfg: DictConfig) -> Any:
    """The data of a config; what it suggests to other groups is not its own concern."""
    settings: Any = OmegaConf.to_container(cfg.data, resolve=True)
    return make(OmegaConf.create({key: value for key, value in settings.items() if key != "recommended"}))


def make_process(cfg: DictConfig) -> Any:
    """The forward process of a config, checked; what it warns of is logged."""
    process = make(cfg.forward)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        process.validate()
    if launch.rank() == 0:
        for warning in caught:
            log.warning("Note: %s", warning.message)
    return process


def make_sampler(node: DictConfig) -> Any:
    """A sampler with its options, to be called with (model, u_K, levels, ...)."""
    return hydra.utils.instantiate(node, _partial_=True, _convert_="all")


def build(cfg: DictConfig) -> tuple[Any, Any]:
    """The model and the data of a training config, wired together and checked; what the model chose goes into `cfg`."""
    data, process = make_data(cfg), make_process(cfg)
    sampler = make_sampler(cfg.sampler)
    model = make(cfg.model, process=process, net=make(cfg.net), sampler=sampler)
    if model.uses_sampler:
        from heatgen.sampler.interface import check_pair

        check_pair(sampler, model)
    for key, value in model.chosen.items():
        OmegaConf.update(cfg, f"model.{key}", value)
        if launch.rank() == 0:
            log.info("model.%s=auto chose %s for forward=%s", key, value, process.name)
    return model, data


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


# training ---------------------------------------------------------------------------------------------------------------


@verb
def train(cfg: DictConfig) -> float | None:
    """Train the model of a config in its run directory; its best validation loss (None where several processes ran)."""
    hc = HydraConfig.get()
    run, overrides = Path(hc.runtime.output_dir), list(hc.overrides.task)
    launch.check_evaluate(cfg.evaluate)
    if cfg.resume:
        cfg = directory.resumed(run, overrides, hc.runtime.choices)
    count = launch.count_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    if count > 1 and not launch.is_child():
        finish(launch.launch("train", [*launch.child_arguments(hc, run), *overrides], count, run))
        launch.evaluate(run, cfg, hc.mode == RunMode.MULTIRUN)
        return None

    import lightning as L

    from heatgen.app.trainer import make_trainer, quiet_lightning
    from heatgen.callback.checkpoints import AtomicIO

    quiet_lightning()
    L.seed_everything(check.integer("seed", cfg.seed, minimum=0), verbose=False)
    model, data = build(cfg)
    callbacks = {name: make(node) for name, node in cfg.callback.items() if node is not None}
    if launch.rank() == 0:
        data.prepare_data()
        if not model.trainable:  # exact answers: refuse now what they cannot do
            model.calibrate(data)
        if not cfg.resume and (run / "config.yaml").exists():
            raise ConfigError(f"{run} already holds a run; resume it with resume={run}, or start again.")
        directory.describe_run(run, OmegaConf.to_yaml(cfg, resolve=True), overrides)
        log.info("run: %s", run)
    loggers = [make(node, folder=str(run)) for node in cfg.logger.values()] if launch.rank() == 0 else []
    options: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    trainer = make_trainer(options, run, data, list(callbacks.values()), loggers)
    if checkpoint := directory.find_checkpoint(run, "last") if cfg.resume else None:
        directory.read_checkpoint(checkpoint)
    started = time.monotonic()
    if model.trainable:
        trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
    else:
        AtomicIO().save_checkpoint({"state_dict": model.state_dict(), "callbacks": {}}, run / "checkpoints" / "last.ckpt")
    stopped = callbacks["checkpoints"].signal if "checkpoints" in callbacks else 0
    if stopped:
        log.info("stopped by a signal at step %d; go on with: python train.py resume=%s", trainer.global_step, run)
        sys.exit(128 + stopped)
    best = callbacks["checkpoints"].best if "checkpoints" in callbacks else math.inf
    values = {"val/loss": best, "steps": trainer.global_step, "seconds": round(time.monotonic() - started)}
    if launch.rank() == 0 and trainer.global_step:
        directory.write_result(run, "train", {"mode": "train", "values": values, "headline": ["val/loss", "seconds"]})
    done = f"trained {trainer.global_step} steps" if model.trainable else "nothing to train"
    done += f", best val/loss {best:.6g}" if math.isfinite(best) else ""
    log.info("%s; next: python sample.py run=%s", done, run)
    launch.evaluate(run, cfg, hc.mode == RunMode.MULTIRUN)
    return float(best)


def finish(code: int) -> None:
    """End with the exit code of failed processes, which have said why; in a sweep the other jobs go on first."""
    if code >= 128 or (code and HydraConfig.get().mode == RunMode.RUN):
        sys.exit(code)
    if code:
        raise ConfigError(f"The processes of a job ended with exit code {code}; it says why above.")


# sampling and measuring -------------------------------------------------------------------------------------------------


def open_devices(cfg: DictConfig) -> Any:
    """The processes to sample and measure on."""
    from heatgen.app.trainer import quiet_lightning
    from heatgen.runtime.devices import Devices

    quiet_lightning()
    options: Any = OmegaConf.to_container(cfg.trainer, resolve=True)
    return Devices(**{key: options[key] for key in ("accelerator", "devices", "num_nodes", "precision")})


def launched(script: str, cfg: DictConfig, folder: Path) -> bool:
    """Whether the job of a script has been done by several processes that this one started and waited for."""
    count = launch.count_devices(cfg.trainer.accelerator, cfg.trainer.devices)
    if count == 1 or launch.is_child():
        return False
    hc = HydraConfig.get()
    finish(launch.launch(script, [*launch.child_arguments(hc, Path(".")), *hc.overrides.task], count, folder))
    return True


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


def sampler_label(cfg: DictConfig) -> str | None:
    """The sampler that was asked for, with its options, as words; None: the run's own."""
    from heatgen.app.draw import sampler_words

    return " ".join(sampler_words(cfg)) or None


@verb
def sample(cfg: DictConfig) -> None:
    """Sample from a run; see conf/sample.yaml."""
    run = directory.find_run(cfg.run, cfg.runs_dir)
    for key in ("num_points", "batch_size", *(["n"] if cfg.n is not None else [])):
        check.integer(key, cfg[key], minimum=1)
    for key in ("same_init", "share_noise", "interpolate"):
        check.boolean(key, cfg[key])
    check.integer("seed", cfg.seed, minimum=0)
    if launched("sample", cfg, run):
        return
    from heatgen.app import draw

    devices = open_devices(cfg)
    model, data, _ = load_for(cfg, run, devices)
    cfg.n = draw.usual_n(model.process.shape) if cfg.n is None else cfg.n
    folder = draw.draw(model, data, devices, run / "samples", cfg)
    if devices.first:
        log.info("samples: %s", folder)


@verb
def evaluate(cfg: DictConfig) -> None:
    """Measure a run, or a data set alone; see conf/evaluate.yaml."""
    if cfg.run is None and cfg.get("data") is None:
        raise ConfigError("run=null measures a data set alone; say which with data=NAME.")
    if cfg.run is not None and (cfg.get("data") or cfg.get("forward")):
        raise ConfigError("A run has its own data and forward; remove data= and forward=, or measure them with run=null.")
    check.integer("batch_size", cfg.batch_size, minimum=1)
    check.integer("seed", cfg.seed, minimum=0)
    mode, choices = HydraConfig.get().runtime.choices["mode"], HydraConfig.get().runtime.choices
    alone = cfg.run is None
    run = Path(cfg.runs_dir) / f"data-{choices.get('data')}" if alone else directory.find_run(cfg.run, cfg.runs_dir)
    if launched("evaluate", cfg, run):
        return
    from heatgen.report.table import report, report_sweep

    metric, devices = make(cfg.metric), open_devices(cfg)
    deltas = list(cfg.delta) if OmegaConf.is_list(cfg.delta) else [cfg.delta]
    if OmegaConf.is_list(cfg.delta) and not (deltas and all(isinstance(delta, (int, float)) for delta in deltas)):
        raise ConfigError(f"delta={deltas} must be a list of numbers, such as [0.01,0.0125].")
    if cfg.picture is not None and Path(cfg.picture).suffix not in (".png", ".jpg"):
        raise ConfigError(f"picture={cfg.picture} must end in .png or .jpg.")
    own, results = parameter(cfg), []
    for cfg.delta in deltas:
        ctx, run_config = make_context(cfg, None if alone else run, devices)
        results.append(metric(ctx))
        sampler = sampler_label(cfg)
        results[-1].facts |= {"sampler": sampler} if sampler else {}
        if devices.first:
            experiment = cfg.experiment_name or run_config.get("experiment_name") or "default"
            swept = own if len(deltas) == 1 else ("delta", cfg.delta)
            report(results[-1], mode, run, cfg.runs_dir, str(experiment), swept, cfg.picture, cfg.variant or sampler)
    if devices.first and len(deltas) > 1:
        report_sweep("delta", deltas, results, mode, run)


def make_context(cfg: DictConfig, run: Path | None, devices: Any) -> tuple[Any, DictConfig]:
    """What is to be measured, and its config: a run, or where that is None a data set and a forward map alone."""
    from heatgen.metric.metric import EvalContext

    if run is not None:
        model, data, run_config = load_for(cfg, run, devices)
        name = run_config.name.rsplit("-", 1)[-1]
        return EvalContext(model, data, name, devices, cfg.n, cfg.batch_size, cfg.seed, model.process), run_config
    data = make_data(cfg)
    with devices.fabric.rank_zero_first():
        data.prepare_data()
    process = make_process(cfg) if cfg.get("forward") is not None else None
    name = HydraConfig.get().runtime.choices["data"]
    return EvalContext(None, data, name, devices, cfg.n, cfg.batch_size, cfg.seed, process), cfg


def parameter(cfg: DictConfig) -> tuple[str, Any] | None:
    """The name and value of `param_name`, which stands beside the results in the experiment's table."""
    if cfg.param_name is None:
        return None
    value = OmegaConf.select(cfg, cfg.param_name)
    if value is None:
        raise ConfigError(f"param_name={cfg.param_name} is not a key that has a value; give one, such as delta.")
    return cfg.param_name, value
