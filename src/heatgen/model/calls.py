"""What samples cost: how often a network, or exact answers in its place, are called."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass
class Calls:
    """The calls of a model, each times the samples in it; shared by the copies of it that `bind` makes."""

    all: int = 0
    drawing: int = 0  # of these, for samples that were drawn
    samples: int = 0
    seconds: float = 0.0  # that they took

    @property
    def nfe(self) -> float | None:
        """Calls a sample; None where none was drawn."""
        return self.drawing / self.samples if self.samples else None

    @contextmanager
    def sampling(self, samples: int) -> Iterator[None]:
        """Within it so many samples are drawn; where that fails, they do not count."""
        before, start = self.all, time.monotonic()
        yield
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.drawing, self.samples = self.drawing + self.all - before, self.samples + samples
        self.seconds += time.monotonic() - start
