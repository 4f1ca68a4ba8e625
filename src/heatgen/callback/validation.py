"""A training is counted in optimizer steps: when validations are due, and where it stands in its checkpoints."""

import sys
from typing import Any

import lightning as L


class Validation(L.Callback):
    """Validates every trainer.val_check_interval optimizer steps and at the last one, however many batches a step takes.

    Lightning counts batches, and looks at `val_check_batch` behind each of them. Its counters in a checkpoint depend on what
    it was doing while the checkpoint was written; they are set to between two steps, so that a training that was resumed
    writes the same as one that was not, and may go on with other accumulate_grad_batches.
    """

    def __init__(self) -> None:
        self.last_step = 0

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last_step = trainer.global_step
        trainer.val_check_batch = sys.maxsize

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        step, before = trainer.global_step, self.last_step
        due = step > before and (step % trainer.val_check_interval == 0 or step == trainer.max_steps)
        trainer.val_check_batch, self.last_step = 1 if due else sys.maxsize, step

    def on_save_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        settle(checkpoint, trainer.accumulate_grad_batches)

    def on_load_checkpoint(self, trainer: L.Trainer, pl_module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        settle(checkpoint, trainer.accumulate_grad_batches)


def settle(checkpoint: dict[str, Any], accumulate: int) -> None:
    """Set Lightning's counters in a checkpoint to between two steps: no batch is begun, no validation is under way."""
    step, fit = checkpoint["global_step"], checkpoint["loops"]["fit_loop"]
    checkpoint["epoch"] = 0  # all of the stream is one
    none, begun = ({key: n for key in ("ready", "started", "processed", "completed")} for n in (0, step * accumulate))
    epoch = none | {"ready": 1, "started": 1}
    fit["epoch_progress"] = {"total": epoch, "current": dict(epoch)}
    fit["epoch_loop.state_dict"] = {"_batches_that_stepped": step}
    fit["epoch_loop.batch_progress"] = {"total": begun, "current": dict(begun), "is_last_batch": False}
    fit["epoch_loop.val_loop.batch_progress"] = {"total": none, "current": dict(none), "is_last_batch": False}
