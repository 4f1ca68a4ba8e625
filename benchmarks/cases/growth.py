"""How the digits' network grows with the number of levels and with the batch."""

import statistics
from collections.abc import Iterator

from benchmarks import ours
from benchmarks.harness import Bench, Entry, Growth

SECONDS = 25
LEVELS, BATCHES = (25, 50, 100, 200), (16, 64, 256)


def measure(bench: Bench) -> Iterator[Entry]:
    """All sizes of a kind are run in turn."""
    tiny = ours.TINY if bench.quick else ()
    training, sampling = {}, {}
    levels, batches = bench.sizes(LEVELS, (2, 4)), bench.sizes(BATCHES, (1, 2))
    for count in levels:
        model = ours.made(bench.device, "data=digits", f"forward.num_levels={count}", *tiny)
        u = ours.images(4, model.process.shape, bench.device)
        sampling[str(count)] = ours.Sampling(model, u, count)
        training[str(count)] = ours.Training(ours.made(bench.device, "data=digits", f"forward.num_levels={count}", *tiny), u)
    for name, steps in (("all samplings", sampling), ("training step", training)):
        times = bench.times({**steps}, 4.0)
        points = tuple((float(count), 1e3 * statistics.median(times[str(count)])) for count in levels)
        yield Growth("growth", f"digits, {name}", "levels K", points)
    model = ours.made(bench.device, "data=digits", *tiny)
    by_batch = {str(batch): ours.Training(model, ours.images(batch, model.process.shape, bench.device)) for batch in batches}
    times = bench.times({**by_batch}, 6.0)
    points = tuple((float(batch), 1e3 * statistics.median(times[str(batch)])) for batch in batches)
    yield Growth("growth", "digits, training step", "batch", points)
