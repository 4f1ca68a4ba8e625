"""The heat operator: cosine transforms by two matrix products against FFTs, in PyTorch and in SciPy."""

from collections.abc import Iterator

import scipy.fft
import torch
from torch import Tensor

from benchmarks import original
from benchmarks.floors import Work
from benchmarks.harness import Bench, Entry, Function, Growth
from heatgen.forward.heat import Heat

SECONDS = 45
PIXELS = 2**18  # of a batch, about
SHAPES = ((28, 28), (32, 32), (48, 80), (64, 64), (128, 128), (256, 256))
OURS = "matrices"


def work(batch: int, height: int, width: int) -> Work:
    """Two transforms there and two back, and a factor each; the fields are read and written once."""
    products = 2 * 2 * height * width * (height + width)
    return Work(batch * (products + height * width), 8.0 * batch * height * width)


def by_scipy(u: Tensor, decay: Tensor) -> Tensor:
    """The same by scipy.fft, with all threads."""
    threads = torch.get_num_threads()
    c = scipy.fft.dctn(u.numpy(), axes=(2, 3), norm="ortho", workers=threads) * decay.numpy()
    return torch.from_numpy(scipy.fft.idctn(c, axes=(2, 3), norm="ortho", workers=threads))


def by_fft(u: Tensor, decay: Tensor) -> Tensor:
    """The same by FFTs of PyTorch."""
    return original.idct_2d(original.dct_2d(u) * decay)


def functions(bench: Bench, batch: int, height: int, width: int) -> dict[str, Function]:
    """The three ways, of one batch; they agree."""
    heat = Heat((1, height, width), num_levels=50).to(bench.device)
    u = torch.rand(batch, 1, height, width, generator=torch.Generator().manual_seed(0)).to(bench.device)
    t = heat.times[torch.arange(batch) % 50 + 1]
    decay = torch.exp(-heat.eigenvalues * t[:, None, None, None]).float()
    ways: dict[str, Function] = {OURS: lambda: heat.mean(u, t), "FFT in PyTorch": lambda: by_fft(u, decay)}
    if not bench.on_gpu:
        ways["scipy.fft"] = lambda: by_scipy(u, decay)
    expected = heat.mean(u, t)
    for name, way in ways.items():
        found = way()
        assert isinstance(found, Tensor)
        assert torch.allclose(found, expected, atol=1e-4), f"{name} differs"
    return ways


def measure(bench: Bench) -> Iterator[Entry]:
    """A row for each shape and other way, and the growth with the number of pixels at one size of batch."""
    points = []
    for height, width in bench.sizes(SHAPES, ((8, 8), (6, 10))):
        batch = max(1, (256 if bench.quick else PIXELS) // (height * width)) * (8 if bench.on_gpu else 1)
        ways = functions(bench, batch, height, width)
        for other in list(ways)[1:]:
            pair = {OURS: ways[OURS], other: ways[other]}
            rows = bench.compare(
                *("heat", f"{height} x {width}, batch {batch}", pair, other),
                {OURS: work(batch, height, width)},
                2.0,
            )
            yield from rows
        points.append((height * width, rows[0].value / batch))
    yield Growth("heat", "heat operator by matrices, one image", "pixels", tuple(points))
