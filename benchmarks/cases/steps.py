"""A training and a sampling step of the published networks, by layout and precision, against plain float32."""

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

from benchmarks import ours
from benchmarks.harness import Bench, Entry, Note
from heatgen.model.module import Method
from heatgen.net.unet import UNet

SECONDS = 110
PLAIN = "float32, contiguous"
LAYOUTS = {"contiguous": torch.contiguous_format, "channels last": torch.channels_last}
BATCHES = {"ihd_mnist": (2, 128), "ihd_cifar10": (1, 128), "ihd_ffhq128": (1, 32)}  # on a CPU, on a GPU
SLOW = {"ihd_ffhq128": "a step of one image takes a minute on a CPU: --full measures it"}
LEVELS = 2  # of sampling
Step = ours.Training | ours.Sampling


def laid_out(model: Method, layout: str) -> Method:
    """A copy of a model whose network works in this layout."""
    other = copy.deepcopy(model)
    assert isinstance(other.net, UNet)
    other.net.memory_format = LAYOUTS[layout]
    other.net.to(memory_format=LAYOUTS[layout])
    return other


def step_of(model: Method, u: Tensor, training: bool, precision: str) -> Step:
    """A training step of a batch, or a few sampling steps."""
    return ours.Training(model, u, precision) if training else ours.Sampling(model, u, LEVELS, precision)


def measure_net(bench: Bench, experiment: str) -> Iterator[Entry]:
    """The rows of one network."""
    words = ours.TINY if bench.quick else ()
    model = ours.made(bench.device, f"experiment={experiment}", "net.dropout=0", *words)
    batch = 2 if bench.quick else BATCHES[experiment][bench.on_gpu]
    u = ours.images(batch, model.process.shape, bench.device)
    models = {layout: laid_out(model, layout) for layout in LAYOUTS}
    precisions = ours.precisions(bench.device)
    for training in (True, False):
        steps: dict[str, Step] = {
            f"{name}, {layout}": step_of(models[layout], u, training, precision)
            for name, precision in precisions.items()
            for layout in LAYOUTS
        }
        name = f"{experiment}, batch {batch}, {'training' if training else f'{LEVELS} sampling steps'}"
        works = {key: step.work() for key, step in steps.items()}
        yield from bench.compare("steps", name, {**steps}, PLAIN, works, 12.0)
        del steps


def measure(bench: Bench) -> Iterator[Entry]:
    """The rows of all networks that are not too slow here."""
    for experiment in BATCHES:
        if bench.quick and experiment != "ihd_mnist":
            continue
        if experiment in SLOW and not (bench.full or bench.on_gpu):
            yield Note("steps", experiment, SLOW[experiment])
        else:
            yield from measure_net(bench, experiment)
