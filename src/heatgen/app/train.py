"""Train a model; see conf/train.yaml."""

import logging
import math
import sys
import time
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.app.build import build, instantiate
from heatgen.app.job import in_sweep, launched, task_wrapper
from heatgen.check import ConfigError
from heatgen.runtime import directory, launch

log = logging.getLogger("heatgen")


@task_wrapper
def train(cfg: DictConfig) -> float | None:
    """Train the model of a config in its run directory; its best validation loss (None where several processes ran)."""
    hc = HydraConfig.get()
    run, overrides = Path(hc.runtime.output_dir), list(hc.overrides.task)
    launch.check_evaluate(cfg.evaluate)
    if cfg.resume:
        cfg = directory.resumed(run, overrides, hc.runtime.choices)
    if launched("train", cfg, run, run):
        launch.evaluate(run, cfg, in_sweep())
        return None

    import lightning as L

    from heatgen.app.trainer import make_trainer, quiet_lightning
    from heatgen.callback.checkpoints import AtomicIO

    quiet_lightning()
    L.seed_everything(check.integer("seed", cfg.seed, minimum=0), verbose=False)
    model, data = build(cfg)
    callbacks = {name: instantiate(node) for name, node in cfg.callback.items() if node is not None}
    if launch.rank() == 0:
        data.prepare_data()
        if not model.trainable:  # exact answers: refuse now what they cannot do
            model.calibrate(data)
        if not cfg.resume and (run / "config.yaml").exists():
            raise ConfigError(f"{run} already holds a run; resume it with resume={run}, or start again.")
        directory.describe_run(run, OmegaConf.to_yaml(cfg, resolve=True), overrides)
        log.info("run: %s", run)
    loggers = [instantiate(node, folder=str(run)) for node in cfg.logger.values()] if launch.rank() == 0 else []
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
    launch.evaluate(run, cfg, in_sweep())
    return float(best)
