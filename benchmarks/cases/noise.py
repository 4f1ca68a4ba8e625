"""Noise that depends on its purpose, beside the same amount of PyTorch's own stream."""

import statistics
from collections.abc import Iterator
from functools import partial

import torch

from benchmarks.floors import Work
from benchmarks.harness import Bench, Entry, Function, Growth
from heatgen.noise import SampleNoise

SECONDS = 12
SHAPES = {"digits": (1, 8, 8), "MNIST": (1, 28, 28), "CIFAR-10": (3, 32, 32)}


def draw(u: torch.Tensor) -> torch.Tensor:
    """Noise for a batch, as a training step draws it."""
    return SampleNoise(torch.arange(len(u), device=u.device), 0, "train").normal_like(u)


def measure(bench: Bench) -> Iterator[Entry]:
    """A draw of a batch, the object included, for three shapes; and its growth with the batch."""
    for name, shape in SHAPES.items():
        batch = 8 if bench.quick else 128
        u = torch.empty(batch, *shape, device=bench.device)
        ways: dict[str, Function] = {"SampleNoise": partial(draw, u), "torch.randn": partial(torch.randn_like, u)}
        works = {"SampleNoise": Work(bytes=4.0 * u.numel())}
        yield from bench.compare("noise", f"{name}, batch {batch}", ways, "torch.randn", works, 2.0)
    points = []
    for batch in bench.sizes((32, 128, 512), (2, 4)):
        u = torch.empty(batch, *SHAPES["MNIST"], device=bench.device)
        times = bench.times({"draw": partial(draw, u)}, 1.0)["draw"]
        points.append((float(batch), 1e3 * statistics.median(times)))
    yield Growth("noise", "a draw of MNIST's shape", "batch", tuple(points))
