"""Callbacks for tests/app/test_distributed.py: one counts what processes exchange, one sends a signal to one of them."""

import json
import os
from pathlib import Path

import lightning as L
from torch.profiler import ProfilerActivity, profile

FIRST, LAST = 5, 9  # steps, counted from 1, that no row, validation or checkpoint belongs to


class Collectives(L.Callback):
    """Writes to a file how often each collective was made in steps FIRST to LAST."""

    def __init__(self, path: str):
        self.path, self.profile = Path(path), profile(activities=[ProfilerActivity.CPU])

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if trainer.global_step == FIRST - 1:
            self.profile.start()
        if trainer.global_step == LAST:
            self.profile.stop()
            counts = {event.key: event.count for event in self.profile.key_averages()}
            found = {key: n for key, n in counts.items() if key.startswith(("gloo:", "nccl:"))}
            self.path.with_name(f"{self.path.name}_{trainer.global_rank}.json").write_text(json.dumps(found))


class Hit(L.Callback):
    """Sends a signal to the process of a rank, within a step."""

    def __init__(self, rank: int, step: int, number: int):
        self.rank, self.step, self.number = rank, step, number

    def on_train_batch_end(self, trainer: L.Trainer, *_: object) -> None:
        if (trainer.global_rank, trainer.global_step) == (self.rank, self.step):
            os.kill(os.getpid(), self.number)
