"""What ends the training of a search's trial early: a val/loss that is worse than that of most other trials at its step."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

import lightning as L

if TYPE_CHECKING:
    from optuna.trial import Trial

STUDY, NAME = "study.db", "search"  # the file of a study in a sweep's folder, and its name in there
PRUNED = "pruned after step"  # what a trial says whose training ended early

log = logging.getLogger("heatgen")


def storage_of(folder: Path) -> str:
    """Where Optuna finds the study of a sweep's folder; SQLite's file holds whatever was told it before a kill."""
    return f"sqlite:///{folder.absolute() / STUDY}"


class Prune(L.Callback):
    """Tells a study val/loss after each validation, and ends the training where its pruner (the median of others) says so.

    Args:
        folder: of the sweep, where the study is.
        number: of the trial.
    """

    def __init__(self, folder: Path, number: int):
        self.folder, self.number = folder, number
        self.trial: Trial | None = None  # in the first process of a search that prunes

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not trainer.is_global_zero:
            return
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.load_study(study_name=NAME, storage=storage_of(self.folder))
        if study.user_attrs.get("prune"):
            study.pruner = optuna.pruners.MedianPruner(n_startup_trials=study.user_attrs["n_startup_trials"])
            self.trial = optuna.trial.Trial(study, study.get_trials(deepcopy=False)[self.number]._trial_id)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss, step = trainer.callback_metrics.get("val/loss"), trainer.global_step
        bad = False
        if self.trial is not None and loss is not None:
            if step not in self.trial.storage.get_trial(self.trial._trial_id).intermediate_values:  # a resume tells it again
                self.trial.report(float(loss), step)
            bad = step < trainer.max_steps and self.trial.should_prune()
        if trainer.strategy.reduce_boolean_decision(bad, all=False):
            trainer.should_stop = True
            if self.trial is not None:
                self.trial.set_user_attr(PRUNED, step)
                log.info("trial %d is pruned at step %d: its val/loss is worse than most others' were", self.number, step)
