"""The training itself, in this process alone or in one of several: prepared, run, and its result written."""

import logging
import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import lightning as L
from omegaconf import DictConfig, OmegaConf

from heatgen.app import folders, pages, sweep
from heatgen.app.build import build, build_all, refuse_blind_net, refuse_unused
from heatgen.app.describe import Describe
from heatgen.app.initial import frozen_count, start_from
from heatgen.app.job import in_sweep
from heatgen.app.load import advised
from heatgen.app.optimizer import refuse_optimizer
from heatgen.app.plain import plain
from heatgen.app.quoting import typed
from heatgen.app.requests import TrainRequest
from heatgen.app.restart import restart
from heatgen.app.search import pruning
from heatgen.app.too_large import too_large
from heatgen.app.trainer import compile_model, decide_precision, make_trainer, quiet_lightning
from heatgen.callback.checkpoints import AtomicIO, Checkpoints
from heatgen.callback.finite import finite_of
from heatgen.callback.record import Record
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.metric.result import Result, Value
from heatgen.model.module import Method
from heatgen.runtime import directory, ranks, signals

log = logging.getLogger("heatgen")


@dataclass(frozen=True)
class Training:
    """A training of which all that can be refused has been looked at, and nothing is written."""

    model: Method
    data: DataModule
    trainer: L.Trainer
    describe: Describe
    saved: Checkpoints | None  # its checkpoints, unless it keeps none
    checkpoint: Path | None  # what it goes on from
    steps: int  # that it has done


def fit(cfg: DictConfig, request: TrainRequest, changes: list[str], note: str) -> None:
    """Train as a request says, alone or as one of several processes.

    Args:
        cfg: of the run.
        request: read off it.
        changes: the arguments that are new to a run that goes on.
        note: what is other than before in it.
    """
    quiet_lightning()
    with ranks.together():
        training = prepared(cfg, request, note)
        refuse_too_late(training.steps, training.trainer.max_steps, request.run_dir, changes)
    model, steps, first = training.model, training.steps, ranks.rank() == 0
    if model.frozen and cfg.get("init_from") is None and first:
        log.warning("Note: model.freeze keeps random weights as they were drawn; init_from=RUN has trained ones.")
    if request.resume and model.trainable and training.checkpoint is None:
        log.info("%s has no checkpoint yet, so it starts again", request.run_dir)
    if steps >= training.trainer.max_steps and directory.trained(request.run_dir).get("steps") == steps:
        log.info("%s has done all its %d steps", request.run_dir, steps)
        return
    started = time.monotonic()
    try:
        run(training, request.run_dir)
    except Exception as error:
        if refused := too_large(error, cfg, training.trainer):
            raise refused from error
        raise
    seconds = training.saved.seconds if training.saved else time.monotonic() - started
    conclude(training, cfg, request, round(seconds))


def prepared(cfg: DictConfig, request: TrainRequest, note: str) -> Training:
    """A training that can begin. ConfigError for whatever of its config, checkpoint or data cannot be."""
    run_dir, first = request.run_dir, ranks.rank() == 0
    checkpoint: Path | None = run_dir / "checkpoints" / "last.ckpt"
    assert checkpoint is not None
    if not request.resume or not os.path.lexists(checkpoint):
        refuse_lost(checkpoint)
        checkpoint = None
    elif not checkpoint.is_file():
        raise ConfigError(f"{checkpoint} is no file; remove it, and the run starts again.")
    L.seed_everything(request.seed, verbose=False)
    refuse_unused(cfg)
    model, data = build(cfg, prepare=checkpoint is None)
    refuse_blind_net(cfg, model)
    refuse_optimizer(cfg.get("optimizer"), model)
    options = request.trainer | {"precision": decide_precision(cfg, model.net)}
    callbacks = build_all(cfg, "callback")
    steps = restart(checkpoint, cfg, model, data) if checkpoint is not None else 0
    last = cfg.trainer.max_steps
    compile_model(cfg, model, last - steps if isinstance(last, int) else 0)
    if checkpoint is None and cfg.get("init_from") is not None:
        cfg.init_from = str(start_from(model, cfg.init_from, request.runs_dir))
    if first:
        data.prepare_data()
        if not model.trainable:  # exact answers: refuse now what they cannot do
            model.calibrate(data)
    describe = Describe(run_dir, OmegaConf.to_yaml(cfg, resolve=True), request.overrides, data, note)
    loggers = build_all(cfg, "logger", folder=str(run_dir)) if first else []
    own = [describe, Record(plain(cfg)), *pruning(run_dir, request.overrides)]
    trainer = make_trainer(options, run_dir, data, [*own, *callbacks], loggers)
    saved = next((callback for callback in callbacks if isinstance(callback, Checkpoints)), None)
    return Training(model, data, trainer, describe, saved, checkpoint, steps)


def refuse_lost(checkpoint: Path) -> None:
    """ConfigError for a run that was trained to its end, and whose last.ckpt is gone: it would be trained again."""
    if directory.trained(checkpoint.parents[1]):
        best = checkpoint.with_name("best.ckpt")
        instead = f", or begin a new one with {typed('init_from', str(best))}" if best.is_file() else ""
        raise ConfigError(f"The checkpoint {checkpoint} is missing; the run is trained, so start a new one{instead}.")


def run(training: Training, run_dir: Path) -> None:
    """Make the steps that are left; of a model that is not trained there is a checkpoint all the same.

    Stopped, once the user is told how to go on, where a signal came.
    """
    if training.model.trainable:
        try:
            training.trainer.fit(training.model, datamodule=training.data, ckpt_path=training.checkpoint, weights_only=True)
        except signals.Stopped as stop:
            raise stopped(stop, training.trainer.global_step, run_dir) from None
        finally:
            signals.obey()
    elif ranks.rank() == 0:
        training.describe.write()
        content = {"state_dict": training.model.state_dict(), "callbacks": {}}
        AtomicIO().save_checkpoint(content, run_dir / "checkpoints" / "last.ckpt")


def conclude(training: Training, cfg: DictConfig, request: TrainRequest, seconds: int) -> None:
    """Write what a training found, which took so many seconds in all its parts, and say what is where."""
    model, run_dir, steps = training.model, request.run_dir, training.trainer.global_step
    best = float(training.saved.best if training.saved else math.inf)
    finite = finite_of(training.trainer)
    skipped = finite.skipped if finite else 0
    if ranks.rank() == 0 and directory.trained(run_dir).get("steps", 0) != steps:
        parameters = sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
        values = [
            Value("val_loss", best, label="validation loss"),
            Value("steps", steps),
            Value("seconds", seconds, unit="s", label="training time"),
            Value("parameters", parameters),
        ]
        notes = [] if math.isfinite(best) else ["there was no validation, so there is no validation loss."]
        result = Result(values, {}, notes, headline=("val_loss", "seconds", "parameters"))
        result.facts |= {"steps left out, not finite": skipped} if skipped else {}
        result.facts |= {"initial weights": str(cfg.init_from)} if cfg.get("init_from") is not None else {}
        result.facts |= {"frozen parameters": frozen_count(model)} if model.frozen else {}
        directory.write_result(run_dir, "train", {"mode": "train"} | result.content())
    done = f"trained {steps} steps" if model.trainable else "nothing to train"
    done += f", {skipped} of them left out as they were not finite" if skipped else ""
    done += f", best val/loss {best:.6g}" if math.isfinite(best) else ""
    if ranks.rank() == 0 and request.trainer.get("profiler"):
        log.info("profile: %s", ", ".join(map(str, run_dir.glob("fit-profile*.txt"))))
    log.info(done)
    kept = {
        "checkpoints/last.ckpt": "the weights",
        "checkpoints/best.ckpt": "those of the least validation loss",
        "samples/process.gif": "the way back of its samples",
        "metrics.csv": "the losses",
    }
    there = [(run_dir / name, what) for name, what in kept.items() if (run_dir / name).is_file()]
    if ranks.rank() == 0:
        pages.refresh(run_dir) if in_sweep() else pages.tell(there, run_dir)


def refuse_too_late(steps: int, max_steps: int, run_dir: Path, changes: list[str]) -> None:
    """ConfigError for what a command line changes of a run that has done all its steps."""
    late = [word for key, word in folders.by_key(changes).items() if not sweep.acts_anyway(key)]
    if late and steps >= max_steps:
        done = f"{run_dir} has done all its {steps} steps, so {late[0]} cannot act"
        raise ConfigError(f"{done}; remove it, or give more steps with trainer.max_steps=N.")


def stopped(stop: signals.Stopped, step: int, run_dir: Path) -> signals.Stopped:
    """The end of a training that a signal asked for, once the user is told how to go on."""
    if saved := (run_dir / "checkpoints" / "last.ckpt").is_file():
        how = f"; go on with: {advised('resume', run_dir, 'train')}"
        how = "" if in_sweep() else how  # a sweep says it at its end
        log.info("stopped by %s at step %d%s", signals.name_of(stop.number), step, how)
    return signals.Stopped(stop.number, said=saved)
