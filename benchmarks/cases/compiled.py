"""A step of the published MNIST network compiled, beside the same step as it is: compiling takes a minute or two."""

import copy
from collections.abc import Iterator

from benchmarks import ours
from benchmarks.cases.steps import LEVELS, step_of
from benchmarks.compiler import why_none
from benchmarks.harness import Bench, Entry, Note

SECONDS = 1  # on a CPU, where it is left out but with --full


def measure(bench: Bench) -> Iterator[Entry]:
    """Sampling first, whose graph is compiled sooner."""
    if reason := why_none(bench):
        yield Note("compiled", "all", reason)
        return
    words = ours.TINY if bench.quick else ()
    model = ours.made(bench.device, "experiment=ihd_mnist", "net.dropout=0", *words)
    u = ours.images(128 if bench.on_gpu else 2, model.process.shape, bench.device)
    compiled = copy.deepcopy(model)
    compiled.net.compile()
    plain, precision = list(ours.precisions(bench.device).items())[-1]
    for training in (False, True):
        ways = {name: step_of(own, u, training, precision) for name, own in ((plain, model), ("compiled", compiled))}
        name = f"ihd_mnist, batch {len(u)}, {'training' if training else f'{LEVELS} sampling steps'}"
        yield from bench.compare("compiled", name, {**ways}, plain)
