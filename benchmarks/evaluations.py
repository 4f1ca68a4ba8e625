"""Whole evaluations of a small model on bytes of noise, for their memory: what they do is real, but for the features."""

import tempfile
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import ours
from heatgen.data.images import Pixels
from heatgen.data.module import DataModule
from heatgen.metric.context import EvalContext
from heatgen.metric.elbo import ELBO
from heatgen.metric.fid import FID
from heatgen.runtime.devices import Devices
from heatgen.runtime.partial import Partial

SHAPE, FEATURES = (3, 32, 32), 512


class Projection:
    """Features that cost little: random projections of an image."""

    name, logits = "projection", None

    def __init__(self) -> None:
        size = torch.Size(SHAPE).numel()
        self.weights = torch.randn(size, FEATURES, generator=torch.Generator().manual_seed(0)) / size

    def __call__(self, images: Tensor) -> Tensor:
        return images.flatten(1).float() @ self.weights

    def probabilities(self, features: Tensor) -> None:
        return None


class CheapFID(FID):
    """FID of projections."""

    def make_extractor(self, ctx: EvalContext) -> Projection:
        return Projection()


def context(folder: str, n: int, images: dict[str, int], levels: int) -> EvalContext:
    """The model of ihd_cifar10, as small as it gets, with so many levels and images of each split."""
    words = ("experiment=ihd_cifar10", *ours.TINY, f"forward.num_levels={levels}", f"data_dir={folder}")
    model = ours.made(torch.device("cpu"), *words).eval()
    data = DataModule(shape=list(SHAPE), data_dir=folder)
    pixels = {split: torch.randint(0, 256, (count, *SHAPE), dtype=torch.uint8) for split, count in images.items()}
    data.read = lambda split: Pixels(pixels[split])  # type: ignore[method-assign]
    devices = Devices(accelerator="cpu")
    return EvalContext(model, data, "noise", devices, n, 128, 0, model.process, Partial(Path(folder) / "partial", "it"))


def fid(n: int, train: int) -> None:
    """mode=fid of n samples beside so many images."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        CheapFID()(context(folder, n, {"train": train}, levels=2))


def level_k(n: int, train: int) -> None:
    """L_K, as mode=elbo computes it, of n images against so many training images."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        ELBO()._last(context(folder, n, {"train": train, "test": n}, levels=200), range(n))
