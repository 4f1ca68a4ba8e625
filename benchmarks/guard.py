"""The ratios that CI holds within 30 %: budget.json, and whether this machine keeps to it."""

import json
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks import ours
from benchmarks.cases import heat, original, trainer
from benchmarks.child import fake_mnist
from benchmarks.harness import Bench, Function, Row
from benchmarks.original import Averages
from heatgen.check import ConfigError
from heatgen.noise import SampleNoise

BUDGET = Path(__file__).with_name("budget.json")
WITHIN = 0.3
SECONDS = 4.0  # of one ratio


def heat_operator(bench: Bench) -> Row:
    """Blur by matrices beside FFTs in PyTorch."""
    ways = heat.functions(bench, 128, 32, 32)
    other = "FFT in PyTorch"
    return bench.compare("guard", "heat operator", {heat.OURS: ways[heat.OURS], other: ways[other]}, other)[0]


def training_step(bench: Bench) -> Row:
    """A float32 training step beside the original's, at 32 channels."""
    return of_original(bench, "training step", True)


def sampling_step(bench: Bench) -> Row:
    """A float32 sampling step beside the original's, at 32 channels."""
    return of_original(bench, "sampling step", False)


def of_original(bench: Bench, name: str, training: bool) -> Row:
    """Our float32 step beside the original's."""
    steps = original.pairs(bench, 8 if bench.quick else 32, 4, training)
    functions: dict[str, Function] = {key: steps[key] for key in ("heatgen, float32", original.OTHER)}
    return bench.compare("guard", name, functions, original.OTHER, seconds=2 * bench.seconds)[0]


def whole_training(bench: Bench) -> Row:
    """A step of a whole training beside a bare one, of a small network with 128 images."""
    with tempfile.TemporaryDirectory() as folder, fake_mnist(Path(folder)):
        return trainer.overhead(bench, "small network", 32, 6 if bench.quick else 30, trainer.SMALL, Path(folder))


def averages(bench: Bench) -> Row:
    """Averaged weights beside the same, one tensor at a time."""
    model = ours.made(bench.device, "experiment=ihd_mnist", "net.model_channels=32")
    step, parameters = ours.Training(model, ours.images(1, model.process.shape, bench.device)), list(model.parameters())
    theirs = Averages(parameters, 0.999)
    ways: dict[str, Function] = {"ours": lambda: step.ema.update(model), "one by one": lambda: theirs.update(parameters)}
    return bench.compare("guard", "averages", ways, "one by one")[0]


def noise(bench: Bench) -> Row:
    """SampleNoise beside torch.randn, of a batch of MNIST's shape."""
    u, indices = torch.empty(128, 1, 28, 28), torch.arange(128)
    ways: dict[str, Function] = {
        "SampleNoise": lambda: SampleNoise(indices, 0, "train").normal_like(u),
        "torch.randn": lambda: torch.randn_like(u),
    }
    return bench.compare("guard", "noise", ways, "torch.randn")[0]


RATIOS: Mapping[str, Callable[[Bench], Row]] = {
    function.__name__: function
    for function in (heat_operator, training_step, sampling_step, whole_training, averages, noise)
}


def budget() -> dict[str, float]:
    """The ratios of budget.json. ConfigError where it does not name those that are measured."""
    found: dict[str, float] = json.loads(BUDGET.read_text())
    if set(found) != set(RATIOS):
        raise ConfigError(f"{BUDGET} must have a ratio for each of {', '.join(RATIOS)}, and no other.")
    return found


def too_low(found: float, wanted: float) -> bool:
    """Whether a ratio is more than 30 % below its budget; above it is nobody's harm."""
    return found < wanted * (1 - WITHIN)


def guard(bench: Bench, limits: Mapping[str, float], say: Callable[[str], None] = print) -> None:
    """Measure every ratio with CPU time of one thread. ConfigError for one that is too low twice.

    CPU time, rounds in turn and medians: a busy machine changes both sides of a ratio. One that is too low is measured
    once more, three times as long.
    """
    torch.set_num_threads(1)
    bench = replace(bench, seconds=SECONDS, clock=time.process_time)
    for name, wanted in limits.items():
        row = RATIOS[name](bench)
        if too_low(row.ratio, wanted):
            say(f"{name}: {row.ratio:.2f}, too low; once more")
            row = RATIOS[name](replace(bench, seconds=3 * SECONDS))
        say(f"{name}: {row.ratio:.2f} ({row.low:.2f} to {row.high:.2f} in {row.rounds} rounds), budget {wanted:g}")
        if too_low(row.ratio, wanted):
            raise ConfigError(
                f"{name} ({row.ours} beside {row.other}) is {row.ratio:.2f}, more than 30 % below its budget {wanted:g} in "
                f"benchmarks/budget.json; find what made it slower, or lower the budget and say why."
            )
