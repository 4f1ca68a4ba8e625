"""The floors of a machine: what a copy, a matrix product and a launch take, and what a piece of work must take at least."""

import functools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

FLOAT32, BFLOAT16 = "float32", "bfloat16"
COPIED = {"cpu": 2**26, "cuda": 2**30}  # bytes, beyond any cache
SIDE = {"cpu": 1024, "cuda": 8192}  # of a matrix
TRAINING_PASSES = (
    13  # over the weights: read forward and back, gradient written, read for its norm, Adam reads 4 and writes 3, EMA 2
)


@dataclass(frozen=True)
class Work:
    """What must be done: operations in a dtype, bytes between memory and processor, launches one after another."""

    flops: float = 0.0
    bytes: float = 0.0
    dtype: str = FLOAT32


@dataclass(frozen=True)
class Floors:
    """The peaks that were measured on a device.

    Args:
        bandwidth: bytes/s of a copy, read and written.
        peaks: operations/s of a matrix product, by dtype.
        launch: seconds from one small operation to the next.
    """

    bandwidth: float
    peaks: dict[str, float]
    launch: float

    def of(self, work: Work) -> tuple[float, str]:
        """The seconds that a work takes at least, and which peak says so."""
        operations = work.flops / self.peaks.get(work.dtype, self.peaks[FLOAT32])
        moved = work.bytes / self.bandwidth
        return (operations, "operations") if operations >= moved else (moved, "bytes")


def measure(device: torch.device, tiny: bool = False) -> Floors:
    """Measure the floors of a device; takes a second or two."""
    size, side = (2**20, 128) if tiny else (COPIED[device.type], SIDE[device.type])
    source = torch.ones(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copied = best(lambda: target.copy_(source), device)
    peaks = {}
    for name in (FLOAT32, BFLOAT16):
        a, b = (torch.randn(side, side, device=device).to(getattr(torch, name)) for _ in range(2))
        with as_convolutions():
            peaks[name] = 2 * side**3 / best(functools.partial(torch.matmul, a, b), device)
    one = torch.zeros(1, device=device)
    launch = best(lambda: [one.add_(1) for _ in range(100)], device) / 100
    return Floors(2 * size / copied, peaks, launch)


@contextmanager
def as_convolutions() -> Iterator[None]:
    """Products of float32 matrices on a GPU as precise as PyTorch has convolutions there, TF32 unless it is turned off."""
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before


def best(function: Callable[[], object], device: torch.device, rounds: int = 7) -> float:
    """The least seconds of a few calls: a floor is what is possible."""
    least = math.inf
    for _ in range(rounds + 1):
        synchronize(device)
        start = time.perf_counter()
        function()
        synchronize(device)
        least = min(least, time.perf_counter() - start)
    return least


def synchronize(device: torch.device) -> None:
    """Wait for a GPU; a CPU has nothing to wait for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def count(function: Callable[[], object]) -> float:
    """The floating-point operations of the matrix products and convolutions of a call."""
    with FlopCounterMode(display=False) as counter:
        function()
    return float(counter.get_total_flops())
