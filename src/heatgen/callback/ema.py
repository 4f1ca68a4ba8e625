"""callback=ema: an exponential moving average of the weights, used for validation, pictures, sampling and metrics."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.callback.finite import finite_of


class EMA(L.Callback):
    """averages <- d averages + (1 - d) weights after each optimizer step, d = min(decay, (1 + n) / (10 + n)), n = 1, 2, ...

    Floating-point parameters only. The averages live in the checkpoint under this callback's own key; the checkpoint's
    state_dict holds the raw weights.

    Args:
        decay: what d rises to, 0 to 1.

    Raises:
        ConfigError: decay is out of range.

    Source: the warm-up of TensorFlow's ExponentialMovingAverage, as inverse heat dissipation uses it.
    """

    def __init__(self, decay: float = 0.999):
        self.decay = check.number("callback.ema.decay", decay, minimum=0, maximum=1)
        self.updates = 0
        self.last_step = 0  # the optimizer step of the latest update; averages may begin later than the training
        self.averages: list[Tensor] = []
        self._validation = ExitStack()  # holds the averaged weights in place during a validation

    @staticmethod
    def weights(model: nn.Module) -> list[Tensor]:
        """The tensors that are averaged, in order."""
        return [p.data for p in model.parameters() if p.is_floating_point()]

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if not self.averages:
            self.averages = [w.clone() for w in self.weights(pl_module)]
        pairs = zip(self.averages, self.weights(pl_module), strict=True)
        self.averages = [torch.empty_like(w).copy_(a) for a, w in pairs]  # also laid out in memory as they are

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last_step = trainer.global_step

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, *_: object) -> None:
        if trainer.global_step > self.last_step:
            self.last_step = trainer.global_step
            finite = finite_of(trainer)
            if finite and finite.left_out == trainer.global_step:
                self.updates += 1  # a step that was left out
            else:
                self.update(pl_module)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's weights into the averages."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(self.averages, self.weights(model), 1 - decay)

    def copy_to(self, model: nn.Module) -> None:
        """Give the model the averages as its weights."""
        torch._foreach_copy_(self.weights(model), self.averages)

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Within it the model has the averaged weights; afterwards its own again, whatever happened."""
        raw = [w.clone() for w in self.weights(model)]
        self.copy_to(model)
        try:
            yield
        finally:
            torch._foreach_copy_(self.weights(model), raw)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if self.averages:
            self._validation.enter_context(self.applied(pl_module))

    def on_validation_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self._validation.close()

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self._validation.close()

    @property
    def state_key(self) -> str:
        return "EMA"

    def state_dict(self) -> dict[str, object]:
        return {"updates": self.updates, "averages": [a.clone() for a in self.averages]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.updates, self.averages = state_dict["updates"], [a.clone() for a in state_dict["averages"]]


def ema_of(trainer: L.Trainer) -> EMA | None:
    """The averages of a training, where it keeps some."""
    callbacks: list[L.Callback] = trainer.callbacks  # type: ignore[attr-defined]  # set by Lightning, declared nowhere
    return next((callback for callback in callbacks if isinstance(callback, EMA)), None)
