"""Train a model; see conf/train.yaml."""

import logging
import math
from contextlib import ExitStack
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from heatgen import check
from heatgen.app import folders, sweep
from heatgen.app.job import choices, devices_of, in_sweep, launched, task_wrapper
from heatgen.app.load import advised, coming
from heatgen.app.measure import check_evaluate, measure
from heatgen.app.requests import TrainRequest
from heatgen.app.resumed import resumed
from heatgen.app.trust import foreign_targets, named_targets
from heatgen.check import ConfigError
from heatgen.runtime import directory, ranks, signals

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
            from heatgen.app.fit import fit

            fit(cfg, request, changes, note)
        if not in_sweep():
            signals.advise(f"the training is whole; go on with: {advised('resume', run_dir, 'train')}")
        measure(run_dir, request.evaluate, request.runs_dir, request.trainer["accelerator"], in_sweep())
        if not in_sweep() and not ranks.is_own_child() and ranks.rank() == 0:
            log.info(coming(run_dir, "sample", "evaluate"))
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
    own, note = resumed(run_dir, [*changes, *asked], cfg, choices(), trust, named_targets(overrides) | foreign_targets(cfg))
    return own, changes, note


def finished(request: TrainRequest, changes: list[str]) -> bool:
    """Whether a run that is there has done all its steps and nothing that is new could act on them: known in a moment."""
    wanted, done = request.trainer, directory.trained(request.run_dir).get("steps")
    known = request.resume and wanted["max_epochs"] is None and isinstance(wanted["max_steps"], int) and done is not None
    asks = any(key.split(".")[0] not in ("evaluate", "publish") for key in folders.by_key(changes))
    return known and not asks and done >= wanted["max_steps"]
