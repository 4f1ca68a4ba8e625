"""What measuring costs against the number of images: L_K, features for FID, precision and recall."""

import os
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.harness import Bench, Entry, Function, Growth, Note
from heatgen.metric.bound import prior_kl
from heatgen.metric.neighbours import covered, nearest_distances

SECONDS = 75
PIXELS, FEATURES = 784, 256


def level_k(bench: Bench) -> Iterator[Entry]:
    """L_K of 64 images against n training images, beside one product of matrices of its size in float64."""
    points, sizes = [], bench.sizes((1000, 4000, 16000), (50, 100))
    one = torch.ones(1, 1, dtype=torch.float64)
    for n in sizes:
        states, centres = (torch.rand(count, PIXELS, dtype=torch.float64) for count in (64, n))
        ways: dict[str, Function] = {
            "L_K": partial(prior_kl, states, centres, 1e-4 * one, 0.0125 * one),
            "matrix product": partial(torch.matmul, states, centres.mT),
        }
        rows = bench.compare("metrics", f"L_K, 64 images against {n}", ways, "matrix product", seconds=2.0)
        yield from rows
        points.append((float(n), rows[0].value))
    yield Growth("metrics", "L_K", "training images", tuple(points))


def precision(x: Tensor, y: Tensor) -> Tensor:
    """Which of the samples x lie within the balls of the real images y."""
    return covered(x, y, nearest_distances(y, 3))


def neighbours(bench: Bench) -> Iterator[Entry]:
    """Precision of n samples and n real images, beside all distances by differences."""
    points = []
    for n in bench.sizes((500, 1000, 2000), (20, 40)):
        x, y = (torch.randn(n, FEATURES, dtype=torch.float64) for _ in range(2))

        def directly(x: Tensor = x, y: Tensor = y) -> Tensor:
            far = "donot_use_mm_for_euclid_dist"
            radii = torch.cdist(y, y, compute_mode=far).topk(4, largest=False).values[:, -1]
            return (torch.cdist(x, y, compute_mode=far) <= radii).any(1)

        ways: dict[str, Function] = {
            "precision": partial(precision, x, y),
            "all distances": directly,
        }
        rows = bench.compare("metrics", f"precision, {n} and {n} images", ways, "all distances", seconds=3.0)
        yield from rows
        points.append((float(n), rows[0].value))
    yield Growth("metrics", "precision", "images", tuple(points))


def inception(bench: Bench) -> Iterator[Entry]:
    """Inception features, resizing included, beside the network alone."""
    from heatgen.metric.extractor import Inception, find_inception

    places = [os.environ.get("HEATGEN_INCEPTION", ""), str(Path(tempfile.gettempdir()) / "inception-2015-12-05.pt")]
    found = next((place for place in places if place and Path(place).is_file()), None)
    if found is None:
        yield Note("metrics", "Inception", "its weights are not here: HEATGEN_INCEPTION=FILE names them")
        return
    extractor = Inception(find_inception(found, "data"), bench.device)
    points = []
    for n in bench.sizes((4, 16), (1, 2)):
        images = torch.randint(0, 256, (n, 3, 32, 32), dtype=torch.uint8)
        large = torch.rand(n, 3, 299, 299, device=bench.device) * 2 - 1

        @torch.no_grad()
        def alone(large: Tensor = large) -> object:
            return extractor.layers(large)

        ways: dict[str, Function] = {"features": partial(extractor, images), "Inception alone": alone}
        rows = bench.compare("metrics", f"FID features of {n} images", ways, "Inception alone", seconds=8.0)
        yield from rows
        points.append((float(n), rows[0].value))
    yield Growth("metrics", "FID features", "images", tuple(points))


def measure(bench: Bench) -> Iterator[Entry]:
    """All of them."""
    yield from level_k(bench)
    yield from neighbours(bench)
    yield from inception(bench)
