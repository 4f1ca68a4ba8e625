"""callback=progress: one bar for the whole training, with the time that is left."""

import sys

import lightning as L
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from heatgen import check
from heatgen.callback.finite import finite_of

Numbers = dict[str, int | str | float | dict[str, float]]  # what Lightning shows beside the bar


class Progress(TQDMProgressBar):
    """Lightning's bar over all steps of the training (an epoch here is the whole stream), without version numbers.

    train/loss beside it is that of the latest step that `Finite` has looked at, as the bar waits for no device.

    Args:
        refresh_rate: steps from one update to the next; ten times that where the output is not a terminal.

    Raises:
        ConfigError: it is not at least 1.
    """

    def __init__(self, refresh_rate: int = 10):
        check.integer("callback.progress.refresh_rate", refresh_rate, minimum=1)
        super().__init__(refresh_rate=refresh_rate if sys.stdout.isatty() else 10 * refresh_rate)  # less in a log file

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        bar = self.train_progress_bar
        bar.total, bar.initial, bar.n = trainer.max_steps, trainer.global_step, trainer.global_step
        bar.set_description("training")

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        step, bar = trainer.global_step, self.train_progress_bar
        if step > bar.n and self._should_update(step, trainer.max_steps):
            bar.n = step
            bar.set_postfix(self.get_metrics(trainer, pl_module))

    def on_train_epoch_start(self, *_: object) -> None:
        """Keep the bar: a resumed run does not start an epoch, and there is only one."""

    def init_validation_tqdm(self) -> Tqdm:
        """No bar of its own for a validation, which takes a moment."""
        bar = super().init_validation_tqdm()
        bar.disable = True
        return bar

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        """Leave the bar, so that what is said of the end stands below it."""
        if self._train_progress_bar is not None:
            self.train_progress_bar.close()

    def get_metrics(self, trainer: L.Trainer, pl_module: L.LightningModule) -> Numbers:
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        finite = finite_of(trainer)
        known = {} if finite is None or finite.loss is None else {"train/loss": finite.loss}
        return known | metrics
