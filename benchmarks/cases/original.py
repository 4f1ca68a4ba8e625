"""heatgen beside the loop of the original inverse heat dissipation (`benchmarks.original`): MNIST's shape, batch 32."""

from collections.abc import Iterator

import torch
from torch import nn

from benchmarks import ours
from benchmarks.harness import Bench, Entry, Function, Note, Row
from benchmarks.original import Blur, Sampling, Training, UNet
from heatgen.forward.heat import Heat
from heatgen.runtime import engine

SECONDS = 150
OTHER = "the original's loop"
CHANNELS = (32, 64)
BATCH, LEVELS = 32, 1
SHAPE, LARGEST = (1, 28, 28), 20.0
Step = ours.Training | ours.Sampling | Function


def their_net(bench: Bench, channels: int) -> tuple[UNet, Blur]:
    """Their network and blur, on the device."""
    torch.manual_seed(0)
    net = UNet(1, channels, (1, 2, 2), 4, (2,), 0.1, 8 if channels < 32 else 32).to(bench.device)
    return net, Blur(SHAPE[-1], 100, LARGEST).to(bench.device)


def our_words(channels: int) -> tuple[str, ...]:
    """What the same network and map are in heatgen."""
    groups = () if channels >= 32 else ("net.norm_groups=8",)
    return ("experiment=ihd_mnist", f"net.model_channels={channels}", *groups)


def pairs(bench: Bench, channels: int, batch: int, training: bool = True) -> dict[str, Step]:
    """Our step in each precision, and theirs."""
    u = ours.images(batch, SHAPE, bench.device)
    net, blur = their_net(bench, channels)
    model = ours.made(bench.device, *our_words(channels))
    assert sum(p.numel() for p in net.parameters()) == sum(p.numel() for p in model.net.parameters())
    steps: dict[str, Step] = {}
    for name, precision in ours.precisions(bench.device).items():
        step = ours.Training(model, u, precision) if training else ours.Sampling(model, u, LEVELS, precision)
        steps[f"heatgen, {name}"] = step
    steps[OTHER] = Training(net, blur, u) if training else Sampling(net, u, LEVELS)
    return steps


def net_of(steps: dict[str, Step]) -> nn.Module:
    """The network of our steps."""
    return next(step.model.net for step in steps.values() if isinstance(step, (ours.Training, ours.Sampling)))


def blurs(bench: Bench, batch: int) -> list[Row]:
    """The two blurs of a training step."""
    u = ours.images(batch, SHAPE, bench.device)
    heat = Heat(SHAPE, num_levels=100, sigma_max=LARGEST).to(bench.device)
    blur = Blur(SHAPE[-1], 100, LARGEST).to(bench.device)
    k = torch.arange(batch, device=bench.device) + 1
    two: dict[str, Function] = {
        "heatgen": lambda: (heat.mean(u, heat.times[k]), heat.mean(u, heat.times[k - 1])),
        OTHER: lambda: (blur(u, k).float(), blur(u, k - 1).float()),
    }
    return bench.compare("original", f"two blurs, batch {batch}", two, OTHER, seconds=2.0)


def measure(bench: Bench) -> Iterator[Entry]:
    """The blurs alone, then training and sampling steps of both widths."""
    batch = 2 if bench.quick else BATCH
    if not engine.has_bf16(bench.device):
        yield Note("original", "bfloat16", "this device has none, and PyTorch imitates it 20 times slower")
    yield from blurs(bench, batch)
    for channels in bench.sizes(CHANNELS, (8,)):
        for what, training in (("training", True), ("sampling", False)):
            steps = pairs(bench, channels, batch, training)
            works = {name: step.work() for name, step in steps.items() if isinstance(step, (ours.Training, ours.Sampling))}
            functions: dict[str, Function] = dict(steps)
            name = f"{what} step, {channels} channels, batch {batch}"
            facts = {"trainer.precision=auto": engine.precision_for(net_of(steps), bench.device)}
            yield from bench.compare("original", name, functions, OTHER, works, 30.0 if training else 15.0, facts)
            del steps, functions
