"""callback=checkpoints: last.ckpt every so many steps and at the end, best.ckpt by the validation loss."""

import math
import time
from collections.abc import Mapping
from pathlib import Path

import lightning as L
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO

from heatgen import check
from heatgen.callback.ema import ema_of
from heatgen.callback.finite import finite_of, folder
from heatgen.check import ConfigError
from heatgen.runtime import directory, signals
from heatgen.runtime.agreement import Agreement
from heatgen.runtime.files import save_tensors


class AtomicIO(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it, so that a kill or a full disk leaves the old one whole."""

    def save_checkpoint(self, checkpoint: Mapping[str, object], path: str | Path, storage_options: object = None) -> None:
        """torch.save, whole or not at all.

        Args:
            checkpoint: tensors and plain numbers.
            path: the file to be; its folder is made where it is missing.
            storage_options: not used.

        Raises:
            ConfigError: a tensor holds NaN or inf, or it cannot be written; the old file is as it was.
        """
        target = Path(path)
        if bad := check.first_nonfinite_weight(checkpoint):
            raise ConfigError(f"{target} is not written, as {bad} holds NaN or inf; look at the data and the options.")
        try:
            save_tensors(target, checkpoint)
        except OSError as error:
            raise ConfigError(
                f"The checkpoint {target} cannot be written ({error.strerror}); free space or use another disk."
            ) from error


class Checkpoints(L.Callback):
    """Saves last.ckpt now and then and at the end, best.ckpt whenever val/loss is the lowest so far.

    last.ckpt of a step is saved when the next one begins: after the validation, the picture and the row of metrics that
    belong to it, so that a resumed training neither repeats nor misses one.

    A signal (`heatgen.runtime.signals`) ends the training after the current step, or of several processes after one of the
    next (`heatgen.runtime.agreement`), with last.ckpt saved, in all of them together: `signals.Stopped`.

    Args:
        every: optimizer steps from one last.ckpt to the next.
        keep_every: optimizer steps from one step_N.ckpt to the next, which stay; None: there are none.
        keep_last: how many of those stay, the newest; None: all.

    Raises:
        ConfigError: one of them is not at least 1, or keep_last has nothing to keep.
    """

    def __init__(self, every: int = 500, keep_every: int | None = None, keep_last: int | None = None):
        self.every = check.integer("callback.checkpoints.every", every, minimum=1)
        self.keep_every, self.keep_last = (
            None if value is None else check.integer(f"callback.checkpoints.{key}", value, minimum=1)
            for key, value in (("keep_every", keep_every), ("keep_last", keep_last))
        )
        if self.keep_last and not self.keep_every:
            raise ConfigError("callback.checkpoints.keep_last is of numbered checkpoints; give keep_every, too.")
        self.best = math.inf  # the lowest val/loss so far
        self.last_step = 0
        self.earlier = 0.0  # seconds of the training before it was resumed
        self.started: float | None = None
        self.saving = ""  # the name of the checkpoint that is being written
        self.agreement = Agreement(torch.device("cpu"), 1)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.is_global_zero:
            for leftover in folder(trainer).glob("*.tmp*"):
                leftover.unlink(missing_ok=True)
        self.last_step, self.started = trainer.global_step, time.monotonic()
        self.agreement = Agreement(trainer.strategy.root_device, trainer.world_size)
        signals.note()

    @property
    def seconds(self) -> float:
        """How long the training has taken, in all its parts."""
        return self.earlier + (0.0 if self.started is None else time.monotonic() - self.started)

    def save(self, trainer: L.Trainer, model: L.LightningModule, name: str) -> None:
        """Save a checkpoint. ConfigError, in all processes, for a training that is not finite any longer."""
        if finite := finite_of(trainer):
            ema = ema_of(trainer)
            finite.before_saving(trainer, model, ema.averages if ema else [])
        self.saving = name
        trainer.save_checkpoint(folder(trainer) / name)

    def keep(self, trainer: L.Trainer, model: L.LightningModule) -> None:
        """Save step_N.ckpt where it is due, before last.ckpt, behind which nothing is made again; remove the oldest."""
        if not self.keep_every or trainer.global_step % self.keep_every:
            return
        self.save(trainer, model, f"step_{trainer.global_step}.ckpt")
        if self.keep_last and trainer.is_global_zero:
            for name in directory.snapshots(folder(trainer).parent)[: -self.keep_last]:
                (folder(trainer) / f"{name}.ckpt").unlink(missing_ok=True)

    def on_train_batch_start(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if trainer.global_step == self.last_step:
            return  # gradients are still being accumulated: a resumed run would lose them
        self.last_step = trainer.global_step
        self.keep(trainer, pl_module)
        stop = self.agreement.stops(self.last_step)
        if stop or self.last_step % self.every == 0:
            self.save(trainer, pl_module, "last.ckpt")
        if stop:
            raise signals.Stopped(stop)

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        loss = trainer.callback_metrics.get("val/loss")
        if loss is not None and loss < self.best:
            self.best = float(loss)
            self.save(trainer, pl_module, "best.ckpt")

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.keep(trainer, pl_module)
        self.save(trainer, pl_module, "last.ckpt")

    @property
    def state_key(self) -> str:
        return "Checkpoints"

    def state_dict(self) -> dict[str, float]:
        """The best so far and, in last.ckpt alone, the seconds: best.ckpt holds nothing that differs from run to run."""
        return {"best": self.best} | ({"seconds": self.seconds} if self.saving == "last.ckpt" else {})

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.best, self.earlier = state_dict["best"], state_dict.get("seconds", 0.0)
