"""The peak memory of children: a training step by precision, FID and L_K against n, beside a child that only imports."""

from collections.abc import Iterator

from benchmarks import ours
from benchmarks.child import peak_of
from benchmarks.harness import Bench, Entry, Growth, Row

SECONDS = 400
IMPORTS = "import torch; torch.set_num_threads(1); from benchmarks import ours"
TRAINING = """
device = torch.device("cpu")
model = ours.made(device, {words})
step = ours.Training(model, ours.images({batch}, model.process.shape, device), "{precision}")
step(), step()
"""
EVALUATION = """
from benchmarks import evaluations
evaluations.{what}({n}, {train})
"""


def row(name: str, mine: str, peak: float, base: float) -> Row:
    """How much a child takes; the ratio is that of the bare import over it."""
    ratio = base / peak
    return Row("memory", name, mine, "imports alone", peak, base, ratio, ratio, ratio, 1, "MiB")


def measure(bench: Bench) -> Iterator[Entry]:
    """Rows, and how memory grows with the batch and with n beyond what the imports take."""
    base = peak_of(IMPORTS)
    bench.step()
    tiny = '"experiment=ihd_mnist", *ours.TINY' if bench.quick else '"experiment=ihd_mnist", "net.model_channels=32"'
    for precision in ours.precisions(bench.device).values():
        points = []
        for batch in bench.sizes((4, 16), (1,)):
            peak = peak_of(IMPORTS + TRAINING.format(words=tiny, batch=batch, precision=precision))
            bench.step()
            yield row(f"training step of ihd_mnist with 32 channels, batch {batch}", precision, peak, base)
            points.append((float(batch), peak - base))
        yield Growth("memory", f"training step, {precision}", "batch", tuple(points), "MiB")
    train = 200 if bench.quick else 50_000
    for what, name in (("fid", "mode=fid of {n} samples beside {train} images"), ("level_k", "L_K of {n} against {train}")):
        points = []
        for n in bench.sizes((5000, 10000), (100, 200)):
            peak = peak_of(IMPORTS + EVALUATION.format(what=what, n=n, train=train))
            bench.step()
            yield row(
                f"{name.format(n=n, train=train)}, 32 x 32", "in tiles" if what == "level_k" else "moments", peak, base
            )
            points.append((float(n), max(peak - base, 1.0)))
        yield Growth("memory", f"{what}, 32 x 32, beyond the imports", "n", tuple(points), "MiB")
