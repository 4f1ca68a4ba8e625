"""The peak memory of children: a training step by precision, and L_K against n, beside a child that only imports."""

from collections.abc import Iterator

from benchmarks.child import peak_of
from benchmarks.harness import Bench, Entry, Growth, Row

SECONDS = 100
IMPORTS = "import torch; torch.set_num_threads(1); from benchmarks import ours"
TRAINING = """
device = torch.device("cpu")
model = ours.made(device, {words})
step = ours.Training(model, ours.images({batch}, model.process.shape, device), "{precision}")
step(), step()
"""
LEVEL_K = """
from heatgen.metric.bound import prior_kl
one = torch.ones(1, 1, dtype=torch.float64)
centres = torch.rand({n}, 784)
prior_kl(torch.rand(64, 784, dtype=torch.float64), centres, 1e-4 * one, 0.0125 * one)
"""


def row(name: str, ours: str, peak: float, base: float) -> Row:
    """How much a child takes; the ratio is that of the bare import over it."""
    ratio = base / peak
    return Row("memory", name, ours, "imports alone", peak, base, ratio, ratio, ratio, 1, "MiB")


def measure(bench: Bench) -> Iterator[Entry]:
    """Rows, and how memory grows with the batch and with n beyond what the imports take."""
    base = peak_of(IMPORTS)
    bench.step()
    tiny = '"experiment=ihd_mnist", *ours.TINY' if bench.quick else '"experiment=ihd_mnist", "net.model_channels=32"'
    for precision in ("32-true", "bf16-mixed"):
        points = []
        for batch in bench.sizes((4, 16), (1,)):
            peak = peak_of(IMPORTS + TRAINING.format(words=tiny, batch=batch, precision=precision))
            bench.step()
            yield row(f"training step of ihd_mnist with 32 channels, batch {batch}", precision, peak, base)
            points.append((float(batch), peak - base))
        yield Growth("memory", f"training step, {precision}", "batch", tuple(points), "MiB")
    points = []
    for n in bench.sizes((5000, 10000), (100, 200)):
        peak = peak_of(IMPORTS + LEVEL_K.format(n=n))
        bench.step()
        yield row(f"L_K, 64 images against {n}", "prior_kl", peak, base)
        points.append((float(n), max(peak - base, 1.0)))
    yield Growth("memory", "L_K beyond the imports", "training images", tuple(points), "MiB")
