"""A whole training by lightning.Trainer on the pretend GPU."""

import contextlib
from collections.abc import Iterator
from typing import Any

import lightning as L
import torch
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.strategies import SingleDeviceStrategy

from heatgen.app import trainer

from .cases import Waits
from .gpu import CUDA, Gpu


class PretendAccelerator(CPUAccelerator):
    """The pretend GPU, as Lightning knows devices."""

    def setup_device(self, device: torch.device) -> None:
        """There is nothing to set up."""


class Counts(L.Callback):
    """What the host has waited for in each optimizer step, behind everything that other callbacks do in it."""

    def __init__(self, gpu: Gpu):
        self.gpu, self.before = gpu, Waits()
        self.steps: dict[int, Waits] = {}

    def on_train_start(self, *_: Any) -> None:
        self.before = self.gpu.waits()

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        now = self.gpu.waits()
        self.steps[trainer.global_step], self.before = now - self.before, now


@contextlib.contextmanager
def on_pretend_gpu() -> Iterator[tuple[Gpu, Counts]]:
    """Within it `heatgen.app.trainer` makes its Trainer on the pretend GPU."""
    real = trainer.L
    with Gpu() as gpu:
        counts = Counts(gpu)

        def make(**options: Any) -> L.Trainer:
            strategy = SingleDeviceStrategy(device=CUDA, accelerator=PretendAccelerator())
            options = {key: value for key, value in options.items() if key not in ("accelerator", "devices", "strategy")}
            return L.Trainer(**options | {"devices": 1, "strategy": strategy, "callbacks": [*options["callbacks"], counts]})

        class Shim:
            Trainer = staticmethod(make)
            Callback = L.Callback

        trainer.L = Shim  # type: ignore[assignment]
        try:
            yield gpu, counts
        finally:
            trainer.L = real
