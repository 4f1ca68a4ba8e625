"""What is measured of training images: the law of each coefficient of a map, by itself, and the range of their values."""

import torch
from torch import Tensor

from heatgen.forward.process import ForwardProcess, TrainingData
from heatgen.noise import batches
from heatgen.runtime.peers import ALONE, Peers

MEASURED = 10_000  # training images at most
TINY = 1e-10  # the least variance of a coefficient that counts, in units of the mean one


def moments(process: ForwardProcess, data: TrainingData, peers: Peers = ALONE) -> Tensor:
    """Mean and mean square of each coefficient of training images, (2, C, H, W) float64; the processes share them."""
    n = min(MEASURED, len(data.images("train")))
    total = torch.zeros(2, *process.shape, dtype=torch.float64, device=process.times.device)
    with peers.together():
        for indices in batches(peers.share(range(n)), 1024):
            c = process.basis(data.get("train", indices).to(total))
            total += torch.stack([c.sum(0), c.square().sum(0)])
    return peers.sum(total) / n


def floored(spectrum: Tensor) -> Tensor:
    """Variances that may be divided by: at least 1e-10 of their mean."""
    return spectrum.clamp(min=TINY * spectrum.mean() + 1e-30)


def extent(data: TrainingData, peers: Peers = ALONE) -> Tensor:
    """The least and the greatest value of training images, of 10,000 at most, (2,); the processes share them."""
    low, high = torch.inf, -torch.inf
    with peers.together():
        for indices in batches(peers.share(range(min(MEASURED, len(data.images("train"))))), 1024):
            images = data.get("train", indices)
            low, high = min(low, images.min().item()), max(high, images.max().item())
    every = peers.gather(torch.tensor([[low, high]]))
    return torch.stack([every[:, 0].min(), every[:, 1].max()])
