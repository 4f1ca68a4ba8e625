"""Image sets that torchvision knows: read from disk where they are, downloaded where there is a network."""

import gzip
import zlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

import numpy as np
import torch

from heatgen.check import ConfigError
from heatgen.data.images import ImageSet, Pixels, hold_out
from heatgen.data.module import DataModule, DataSettings
from heatgen.runtime import claim

if TYPE_CHECKING:
    from torchvision.datasets import VisionDataset


def download(name: str, folder: Path, files: str, train: bool) -> "VisionDataset":
    """torchvision's data set `name` under `folder`, its train or its test part; one process at a time downloads it there.

    Raises:
        ConfigError: where it is not there and cannot be downloaded; says where to put which `files`.
    """
    import torchvision

    kind = getattr(torchvision.datasets, name)
    with suppress(OSError, RuntimeError):  # it is not there, or not whole
        return kind(root=str(folder), download=False, train=train)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with claim.lock(folder, "is being downloaded to", patience=3600):
            return kind(root=str(folder), download=True, train=train)
    except (OSError, RuntimeError) as error:
        reason = " ".join(str(error).split())[-100:]
        raise ConfigError(f"{name} is not under {folder} and cannot be downloaded ({reason}); put {files} there.") from error


def read_idx(path: Path) -> np.ndarray:
    """The array of an IDX file (the format of MNIST), gzipped or not. ConfigError if it is truncated or something else."""
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rb") as file:
            content = file.read()
        sizes = np.frombuffer(content, ">u4", count=content[3], offset=4)
        return np.frombuffer(content, np.uint8, offset=4 + 4 * len(sizes)).reshape(sizes)
    except (EOFError, OSError, ValueError, IndexError, zlib.error) as error:
        raise ConfigError(
            f"{path} is not a complete IDX file ({error}); delete it or replace it by the right one."
        ) from error


class TorchvisionImages(DataModule):
    """A set with a train and a test part.

    Args:
        val_size: images of the train part that are held out for validation.
        settings: those of `DataModule`.
    """

    def __init__(self, val_size: int = 5000, **settings: Unpack[DataSettings]):
        super().__init__(**settings)
        self.val_size = val_size

    def read_part(self, train: bool) -> torch.Tensor:
        """All images of the train or the test part, (N, C, H, W) uint8."""
        raise NotImplementedError

    def read_labels(self, train: bool) -> torch.Tensor | None:
        """The class of each image of that part, (N,) int64; None where they are missing."""
        return None

    def read(self, split: str) -> ImageSet:
        train = split != "test"
        images = Pixels(self.read_part(train), self.read_labels(train))
        if split == "test":
            return images
        return hold_out(images, self.val_size, "data.val_size")[0 if split == "train" else 1]


class IdxImages(TorchvisionImages):
    """MNIST and its relatives: IDX files, gzipped or not, in any of their usual places.

    Looked for, in this order: <data_dir>/<name>/raw (torchvision's own), <data_dir>/<name>, `system_dir`.
    """

    torchvision_name = ""
    system_dir = ""

    def find(self, train: bool, what: str) -> Path | None:
        """The file of the images (what = images-idx3) or the labels (labels-idx1) of a part."""
        stem = f"{'train' if train else 't10k'}-{what}-ubyte"
        root = Path(self.data_dir)
        folders = [root / self.torchvision_name / "raw", root / self.torchvision_name, Path(self.system_dir)]
        paths = [folder / name for folder in folders for name in (stem, f"{stem}.gz")]
        return next((path for path in paths if path.is_file()), None)

    def read_part(self, train: bool) -> torch.Tensor:
        path = self.find(train, "images-idx3")
        if path is None:
            part = "train" if train else "t10k"
            files = f"{self.torchvision_name}/raw/{part}-images-idx3-ubyte.gz"
            download(self.torchvision_name, Path(self.data_dir), files, train=train)
            path = self.find(train, "images-idx3")
            assert path is not None, "a download that succeeds leaves the file"
        return torch.from_numpy(read_idx(path).copy())[:, None]

    def read_labels(self, train: bool) -> torch.Tensor | None:
        path = self.find(train, "labels-idx1")
        return None if path is None else torch.from_numpy(read_idx(path).copy()).long()
