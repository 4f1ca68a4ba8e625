"""Training steps of the other methods: smdp by the length of its window, neural processes, heat_cnp."""

import functools
import statistics
from collections.abc import Iterator

import torch

from benchmarks import ours
from benchmarks.harness import Bench, Entry, Function, Growth
from heatgen.model.rollout import Rollout

SECONDS = 60
CONSTANT = ("model.window_stages=1", "model.window_add=0", "model.window_final=null")
RECONSTRUCTION = ("hydra.mode=RUN", "evaluate=null", "publish=null", "experiment=reconstruction")
FRAMES = ("hydra.mode=RUN", "evaluate=null", "publish=null", "experiment=neural_processes")


def step(bench: Bench, batch: int, *words: str) -> ours.Training:
    """A training step of a row of an experiment."""
    model = ours.made(bench.device, *words)
    return ours.Training(model, ours.images(batch, model.process.shape, bench.device))


def windows(bench: Bench) -> Iterator[Entry]:
    """smdp at several lengths of its window, beside a step of the network alone as often."""
    points = []
    for window in bench.sizes((2, 4, 8, 16), (2, 3)):
        words = (*RECONSTRUCTION, "experiment/reconstruction=smdp", f"model.window_start={window}", *CONSTANT)
        training = step(bench, 16, *words)
        assert isinstance(training.model, Rollout)
        vars(training.model)["window"] = functools.partial(int, window)  # without a trainer, it has windows of one step
        u, t = training.u0, training.model.process.times[1:2].expand(len(training.u0))
        net, parameters, inputs = training.model, training.parameters, getattr(training.model, "inputs", 1)

        def alone() -> None:
            for _ in range(window):
                out = net.network(u.repeat(1, inputs, 1, 1), t)
                torch.autograd.grad(out.sum(), parameters, allow_unused=True)

        ways: dict[str, Function] = {"training step": training, "its network alone": alone}
        name, works = f"smdp, window {window}, batch 16", {"training step": training.work()}
        rows = bench.compare("models", name, ways, "its network alone", works, 3.0)
        yield from rows
        points.append((float(window), rows[0].value))
    yield Growth("models", "smdp, a training step", "length of the window", tuple(points))


def processes(bench: Bench) -> Iterator[Entry]:
    """Neural processes beside the plainest of them, and their growth with the batch."""
    names = ("np", "heat_cnp", "tnp", "grid_conv_cnp")
    steps = {name: step(bench, 16, *FRAMES, f"experiment/neural_processes={name}") for name in names}
    works = {name: training.work() for name, training in steps.items()}
    yield from bench.compare("models", "neural processes, batch 16", {**steps}, "np", works, 12.0)
    points = []
    for batch in bench.sizes((4, 16, 64), (1, 2)):
        training = step(bench, batch, *FRAMES, "experiment/neural_processes=heat_cnp")
        points.append((float(batch), 1e3 * statistics.median(bench.times({"step": training}, 2.0)["step"])))
    yield Growth("models", "heat_cnp, a training step", "batch", tuple(points))


def measure(bench: Bench) -> Iterator[Entry]:
    """All of them."""
    yield from windows(bench)
    yield from processes(bench)
