"""What every training tells its loggers: its config, the learning rate, the norm of the gradient, and its last row."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import lightning as L
import torch
from torch import Tensor

from heatgen.callback.finite import finite_of
from heatgen.model.module import Method


@runtime_checkable
class CutLogger(Protocol):
    """A logger that can drop what a training that goes on does again."""

    def cut(self, step: int) -> None:
        """Drop what was logged behind `step` optimizer steps."""


class Record(L.Callback):
    """Logs train/loss, train/lr and train/grad_norm (of all gradients, before they are clipped), and the config once.

    The last step of a training has its row whatever log_every_n_steps is. One that a signal stops has none of its own for
    the step it stopped at: whoever goes on with it finds the rows of a training that was left alone.

    Args:
        config: of the run, as plain data.
    """

    def __init__(self, config: Mapping[str, object]):
        self.config = dict(config)
        self.step = 0  # the optimizer step that is being made, from 1
        self.numbers: dict[str, Tensor] = {}  # of that step

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.step = trainer.global_step
        for logger in trainer.loggers if trainer.is_global_zero else ():
            if isinstance(logger, CutLogger):
                logger.cut(trainer.global_step)
            logger.log_hyperparams(self.config)

    def on_before_optimizer_step(
        self, trainer: L.Trainer, pl_module: L.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        finite = finite_of(trainer)
        self.step = trainer.global_step + 1
        assert isinstance(pl_module, Method)
        rate = torch.tensor(optimizer.param_groups[0]["lr"], dtype=torch.float64)
        self.numbers = {"train/loss": pl_module.step_loss, "train/lr": rate}
        if finite is not None:
            self.numbers["train/grad_norm"] = finite.gradient
        if self._has_row(trainer):
            pl_module.log_dict(over_processes(trainer, self.numbers))

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.numbers or self._has_row(trainer) or self.step != trainer.global_step:
            return
        numbers = {key: float(value) for key, value in over_processes(trainer, self.numbers).items()}
        self.numbers = {}
        for logger in trainer.loggers:
            logger.log_metrics(numbers, self.step - 1)

    def _has_row(self, trainer: L.Trainer) -> bool:
        every: int = trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by Lightning, declared nowhere
        return self.step % every == 0


def over_processes(trainer: L.Trainer, numbers: dict[str, Tensor]) -> dict[str, Tensor]:
    """The numbers of a step with the mean loss of all processes; their gradients are the same."""
    return numbers | {"train/loss": torch.as_tensor(trainer.strategy.reduce(numbers["train/loss"], reduce_op="mean"))}
