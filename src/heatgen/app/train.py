"""Train a model; see conf/train.yaml."""

import logging
import math
import os
import time
from contextlib import ExitStack
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.app import folders, sweep
from heatgen.app.build import build, build_callbacks, build_loggers, refuse_blind_net, refuse_unused
from heatgen.app.initial import frozen_count, start_from
from heatgen.app.job import choices, devices_of, in_sweep, launched, task_wrapper
from heatgen.app.measure import check_evaluate, measure
from heatgen.app.quoting import typed
from heatgen.app.requests import TrainRequest, plain
from heatgen.app.resumed import resumed
from heatgen.app.search import pruning
from heatgen.app.trust import named_targets
from heatgen.check import ConfigError
from heatgen.metric.result import Result, Value
from heatgen.runtime import directory, ranks, signals
from heatgen.runtime.command import call

log = logging.getLogger("heatgen")


@task_wrapper
def train(cfg: DictConfig) -> float:
    """Train the model of a config in its run directory; its best validation loss, infinite where there is none."""
    hc = HydraConfig.get()
    run_dir, overrides = Path(hc.runtime.output_dir), list(hc.overrides.task)
    with ExitStack() as kept:
        with ranks.together():
            if ranks.rank() == 0:
                kept.enter_context(folders.locked(run_dir, in_sweep()))
            check_evaluate(cfg.evaluate)
            by_itself = cfg.resume in (None, "auto")  # as a job of a sweep does, or one that is queued again
            cfg, changes, note = going_on(cfg, run_dir, overrides)
            if cfg.get("init_from") == "latest" and in_sweep():
                raise ConfigError("init_from=latest would be the job before, in a sweep; give the folder of a run.")
            request = TrainRequest.of(cfg, run_dir, overrides)
        if by_itself and finished(request, changes):
            log.info("%s has done all its %d steps", run_dir, request.trainer["max_steps"])
        elif not launched("train", devices_of(cfg), run_dir, run_dir):
            fit(cfg, request, changes, note)
        if not in_sweep():
            signals.advise(f"the training is whole; go on with: {call('train')} {typed('resume', str(run_dir))}")
        measure(run_dir, request.evaluate, request.runs_dir, request.trainer["accelerator"], in_sweep())
    best = directory.trained(run_dir).get("val_loss")
    return math.inf if best is None else float(best)


def going_on(cfg: DictConfig, run_dir: Path, overrides: list[str]) -> tuple[DictConfig, list[str], str]:
    """The config of a training, which is that of the run where one goes on; the arguments that are new to that; a note."""
    trust = check.boolean("trust", cfg.trust)
    if cfg.resume not in (None, "auto"):
        own, note = resumed(run_dir, overrides, cfg, choices(), trust)
        return own, folders.differing(run_dir, overrides), note
    exactly = in_sweep() and not sweep.goes_on(Path(HydraConfig.get().sweep.dir))
    changes = folders.going_on(run_dir, overrides, exactly)
    if changes is None:
        return cfg, [], ""
    log.info("going on with the run in %s", run_dir)
    asked = [word for key, word in folders.by_key(overrides).items() if key == "evaluate" and word not in changes]
    own, note = resumed(run_dir, [*changes, *asked], cfg, choices(), trust, named_targets(overrides))
    return own, changes, note


def finished(request: TrainRequest, changes: list[str]) -> bool:
    """Whether a run that is there has done all its steps and nothing that is new could act on them: known in a moment."""
    wanted, done = request.trainer, directory.trained(request.run_dir).get("steps")
    known = request.resume and wanted["max_epochs"] is None and isinstance(wanted["max_steps"], int) and done is not None
    asks = any(key.split(".")[0] not in ("evaluate", "publish") for key in folders.by_key(changes))
    return known and not asks and done >= wanted["max_steps"]


def fit(cfg: DictConfig, request: TrainRequest, changes: list[str], note: str) -> None:
    """Train in this process, alone or as one of several."""
    import lightning as L

    from heatgen.app.describe import Describe
    from heatgen.app.restart import restart
    from heatgen.app.trainer import make_trainer, quiet_lightning
    from heatgen.callback.checkpoints import AtomicIO, Checkpoints
    from heatgen.callback.finite import finite_of
    from heatgen.callback.record import Record

    quiet_lightning()
    run_dir, first = request.run_dir, ranks.rank() == 0
    last = run_dir / "checkpoints" / "last.ckpt"
    checkpoint = last if request.resume and os.path.lexists(last) else None
    with ranks.together():
        if checkpoint is not None and not last.is_file():
            raise ConfigError(f"{last} is no file; remove it, and the run starts again.")
        L.seed_everything(request.seed, verbose=False)
        refuse_unused(cfg)
        model, data = build(cfg)
        refuse_blind_net(cfg, model)
        callbacks = build_callbacks(cfg)
        steps = restart(checkpoint, cfg, model, data) if checkpoint is not None else 0
        if checkpoint is None and cfg.get("init_from") is not None:
            cfg.init_from = str(start_from(model, cfg.init_from, request.runs_dir))
        if first:
            data.prepare_data()
            if not model.trainable:  # exact answers: refuse now what they cannot do
                model.calibrate(data)
        describe = Describe(run_dir, OmegaConf.to_yaml(cfg, resolve=True), request.overrides, data, note)
        loggers = build_loggers(cfg, run_dir) if first else []
        own = [describe, Record(plain(cfg)), *pruning(run_dir, request.overrides)]
        trainer = make_trainer(request.trainer, run_dir, data, [*own, *callbacks.values()], loggers)
        refuse_too_late(steps, trainer.max_steps, run_dir, changes)
    if model.frozen and cfg.get("init_from") is None and first:
        log.warning("Note: model.freeze keeps random weights as they were drawn; init_from=RUN has trained ones.")
    if request.resume and model.trainable and checkpoint is None:
        log.info("%s has no checkpoint yet, so it starts again", run_dir)
    if steps >= trainer.max_steps and directory.trained(run_dir).get("steps") == steps:
        log.info("%s has done all its %d steps", run_dir, steps)
        return
    started = time.monotonic()
    if model.trainable:
        try:
            trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except signals.Stopped as stop:
            raise stopped(stop, trainer.global_step, run_dir) from None
        finally:
            signals.obey()
    elif first:
        describe.write()
        content = {"state_dict": model.state_dict(), "callbacks": {}}
        AtomicIO().save_checkpoint(content, run_dir / "checkpoints" / "last.ckpt")
    saved = next((callback for callback in callbacks.values() if isinstance(callback, Checkpoints)), None)
    best = float(saved.best if saved else math.inf)
    finite = finite_of(trainer)
    skipped = finite.skipped if finite else 0
    if first and directory.trained(run_dir).get("steps", 0) != trainer.global_step:
        parameters = sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
        seconds = round(saved.seconds if saved else time.monotonic() - started)
        result = training_result(best, trainer.global_step, seconds, parameters, skipped)
        result.facts |= {"initial weights": str(cfg.init_from)} if cfg.get("init_from") is not None else {}
        result.facts |= {"frozen parameters": frozen_count(model)} if model.frozen else {}
        directory.write_result(run_dir, "train", {"mode": "train"} | result.content())
    done = f"trained {trainer.global_step} steps" if model.trainable else "nothing to train"
    done += f", {skipped} of them left out as they were not finite" if skipped else ""
    done += f", best val/loss {best:.6g}" if math.isfinite(best) else ""
    if first and request.trainer.get("profiler"):
        log.info("profile: %s", ", ".join(map(str, run_dir.glob("fit-profile*.txt"))))
    log.info("%s; next: %s %s", done, call("sample"), typed("run", str(run_dir)))


def refuse_too_late(steps: int, max_steps: int, run_dir: Path, changes: list[str]) -> None:
    """ConfigError for what a command line changes of a run that has done all its steps."""
    late = [word for key, word in folders.by_key(changes).items() if not folders.acts_anyway(key)]
    if late and steps >= max_steps:
        done = f"{run_dir} has done all its {steps} steps, so {late[0]} cannot act"
        raise ConfigError(f"{done}; remove it, or give more steps with trainer.max_steps=N.")


def stopped(stop: signals.Stopped, step: int, run_dir: Path) -> signals.Stopped:
    """The end of a training that a signal asked for, once the user is told how to go on."""
    if saved := (run_dir / "checkpoints" / "last.ckpt").is_file():
        how = f"; go on with: {call('train')} {typed('resume', str(run_dir))}"
        how = "" if in_sweep() else how  # a sweep says it at its end
        log.info("stopped by %s at step %d%s", signals.name_of(stop.number), step, how)
    return signals.Stopped(stop.number, said=saved)


def training_result(best: float, steps: int, seconds: int, parameters: int, skipped: int = 0) -> Result:
    """What a training found, beside the results of metrics: its best validation loss, steps, seconds and parameters.

    skipped: how many of the steps were left out, as trainer.on_nonfinite=skip has it.
    """
    values = [
        Value("val_loss", best, label="validation loss"),
        Value("steps", steps),
        Value("seconds", seconds, unit="s", label="training time"),
        Value("parameters", parameters),
    ]
    notes = [] if math.isfinite(best) else ["there was no validation, so there is no validation loss."]
    facts: dict[str, object] = {"steps left out, not finite": skipped} if skipped else {}
    return Result(values, facts, notes, headline=("val_loss", "seconds", "parameters"))
