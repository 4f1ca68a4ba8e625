"""data=cifar10: 50,000 + 10,000 colour images in ten classes, 32x32 pixels."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from heatgen.data.torchvision import TorchvisionImages, download

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset


class CIFAR10(TorchvisionImages):
    """CIFAR-10, (3, 32, 32), from <data_dir>/cifar-10-batches-py (the Python version). Source: Krizhevsky 2009."""

    def read_part(self, train: bool) -> torch.Tensor:
        return torch.from_numpy(self._part(train).data).permute(0, 3, 1, 2).contiguous()

    def read_labels(self, train: bool) -> torch.Tensor:
        return torch.tensor(self._part(train).targets)

    def _part(self, train: bool) -> "VisionDataset":
        files = "cifar-10-python.tar.gz (the Python version of CIFAR-10)"
        return download("CIFAR10", Path(self.data_dir), files, train=train)
