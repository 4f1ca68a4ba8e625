"""Train a model; see conf/train.yaml."""

import logging
import math
import time
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.app.build import build, build_callbacks, build_loggers, refuse_blind_net, refuse_unused
from heatgen.app.job import choices, devices_of, in_sweep, launched, task_wrapper
from heatgen.app.measure import check_evaluate, measure
from heatgen.app.quoting import typed
from heatgen.app.requests import TrainRequest, plain
from heatgen.app.resumed import resumed
from heatgen.check import ConfigError
from heatgen.metric.result import Result, Value
from heatgen.runtime import directory, launch, signals
from heatgen.runtime.command import call

log = logging.getLogger("heatgen")


@task_wrapper
def train(cfg: DictConfig) -> float | None:
    """Train the model of a config in its run directory; its best validation loss (None where several processes ran)."""
    hc = HydraConfig.get()
    run_dir, overrides = Path(hc.runtime.output_dir), list(hc.overrides.task)
    check_evaluate(cfg.evaluate)
    if cfg.resume:
        cfg = resumed(run_dir, overrides, choices(), check.boolean("trust", cfg.trust))
    request = TrainRequest.of(cfg, run_dir, overrides)
    done = launched("train", devices_of(cfg), run_dir, run_dir)
    loss = None if done else fit(cfg, request)
    measure(run_dir, request.evaluate, request.runs_dir, request.trainer["accelerator"], in_sweep())
    return loss


def fit(cfg: DictConfig, request: TrainRequest) -> float:
    """Train in this process, alone or as one of several; the best validation loss, infinite where there is none."""
    import lightning as L

    from heatgen.app.checkpoint import check_training
    from heatgen.app.trainer import make_trainer, quiet_lightning
    from heatgen.callback.checkpoints import AtomicIO, Checkpoints
    from heatgen.callback.finite import finite_of
    from heatgen.callback.record import Record

    quiet_lightning()
    L.seed_everything(request.seed, verbose=False)
    run_dir, first = request.run_dir, launch.rank() == 0
    refuse_unused(cfg)
    model, data = build(cfg)
    refuse_blind_net(cfg, model)
    callbacks = build_callbacks(cfg)
    if first:
        data.prepare_data()
        if not model.trainable:  # exact answers: refuse now what they cannot do
            model.calibrate(data)
        if not request.resume and (run_dir / "config.yaml").exists():
            raise ConfigError(
                f"{run_dir} already holds a run; resume it with {typed('resume', str(run_dir))}, or start again."
            )
        directory.describe_run(run_dir, OmegaConf.to_yaml(cfg, resolve=True), request.overrides)
        if changed := directory.describe_data(run_dir, data.report()):
            log.warning("Note: %s", changed)
        log.info("run: %s", run_dir)
    loggers = build_loggers(cfg, run_dir) if first else []
    record = Record(plain(cfg))
    trainer = make_trainer(request.trainer, run_dir, data, [record, *callbacks.values()], loggers)
    if checkpoint := directory.find_checkpoint(run_dir, "last", resume=True) if request.resume else None:
        check_training(directory.read_checkpoint(checkpoint), model, checkpoint)
    started = time.monotonic()
    if model.trainable:
        try:
            trainer.fit(model, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except signals.Stopped as stop:
            raise stopped(stop, trainer.global_step, run_dir) from None
        finally:
            signals.obey()
    else:
        content = {"state_dict": model.state_dict(), "callbacks": {}}
        AtomicIO().save_checkpoint(content, run_dir / "checkpoints" / "last.ckpt")
    saved = next((callback for callback in callbacks.values() if isinstance(callback, Checkpoints)), None)
    best = float(saved.best if saved else math.inf)
    finite = finite_of(trainer)
    skipped = finite.skipped if finite else 0
    if first and trainer.global_step:
        parameters = sum(weights.numel() for weights in model.parameters() if weights.requires_grad)
        result = training_result(best, trainer.global_step, round(time.monotonic() - started), parameters, skipped)
        directory.write_result(run_dir, "train", {"mode": "train"} | result.content())
    done = f"trained {trainer.global_step} steps" if model.trainable else "nothing to train"
    done += f", {skipped} of them left out as they were not finite" if skipped else ""
    done += f", best val/loss {best:.6g}" if math.isfinite(best) else ""
    log.info("%s; next: %s %s", done, call("sample"), typed("run", str(run_dir)))
    return best


def stopped(stop: signals.Stopped, step: int, run_dir: Path) -> signals.Stopped:
    """The end of a training that a signal asked for, once the user is told how to go on."""
    if saved := (run_dir / "checkpoints" / "last.ckpt").is_file():
        where = ["-m", typed("resume", HydraConfig.get().sweep.dir)] if in_sweep() else [typed("resume", str(run_dir))]
        again = " ".join([call("train"), *where])
        log.info("stopped by %s at step %d; go on with: %s", signals.name_of(stop.number), step, again)
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
