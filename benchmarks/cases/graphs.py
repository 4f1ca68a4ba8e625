"""Sampling with the network's calls captured in CUDA graphs, beside the same calls launched one by one."""

import copy
from collections.abc import Iterator

from benchmarks import ours
from benchmarks.harness import Bench, Entry, Note
from heatgen.runtime import graphs

SECONDS = 1  # on a CPU, where it is left out
PLAIN, LEVELS = "launched one by one", 5
BATCHES = (8, 36, 128)


def measure(bench: Bench) -> Iterator[Entry]:
    """The published networks in bfloat16, from few samples, where the host is what is waited for, to many."""
    if not bench.on_gpu:
        yield Note("graphs", "all", "only CUDA has graphs")
        return
    for experiment in ("ihd_mnist", "ihd_cifar10"):
        model = ours.made(bench.device, f"experiment={experiment}", "net.dropout=0", *(ours.TINY if bench.quick else ()))
        for batch in bench.sizes(BATCHES, (2,)):
            u, graphed = ours.images(batch, model.process.shape, bench.device), copy.deepcopy(model)
            graphs.capture_calls(graphed.net, bench.device)
            ways = {
                PLAIN: ours.Sampling(model, u, LEVELS, "bf16-mixed"),
                "graphs": ours.Sampling(graphed, u, LEVELS, "bf16-mixed"),
            }
            name = f"{experiment}, batch {batch}, {LEVELS} sampling steps"
            yield from bench.compare("graphs", name, {**ways}, PLAIN)
