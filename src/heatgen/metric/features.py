"""Inception features as clean-fid takes them, and their cache."""

import hashlib
import os
import shutil
import tempfile
import urllib.request
import warnings
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.module import shuffled
from heatgen.metric.metric import Subject
from heatgen.picture import to_bytes

FILE = "inception-2015-12-05.pt"
SOURCES = ("model", "train", "val", "test")


def find_inception(weights: str | None, data_dir: str) -> Path:
    """The Inception file: `weights`, or data_dir/inception-2015-12-05.pt, or clean-fid's place, or a download."""
    if weights is not None:
        if not Path(weights).is_file():
            raise ConfigError(f"metric.weights = {weights} is not a file; give the Inception network as TorchScript.")
        return Path(weights)
    target = Path(data_dir) / FILE
    for path in (target, Path(tempfile.gettempdir()) / FILE):
        if path.is_file():
            return path
    from cleanfid.downloads_helper import inception_url

    beside = target.with_suffix(f".tmp{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with urllib.request.urlopen(inception_url, timeout=20) as response, beside.open("wb") as file:
            shutil.copyfileobj(response, file)
        if beside.stat().st_size != int(response.headers["Content-Length"] or beside.stat().st_size):
            raise OSError("the connection broke")
        os.replace(beside, target)
    except (OSError, HTTPException) as error:
        beside.unlink(missing_ok=True)
        raise ConfigError(
            f"The Inception network is not at {target} and cannot be downloaded ({error}); "
            f"put {FILE} there, or give its place with metric.weights=FILE."
        ) from error
    return target


class Inception:
    """Features of images, bytes (B, C, H, W) -> (B, 2048) float32: clean-fid's resizing to 299x299, then Inception-v3.

    Grey images are shown in all three channels. path: TorchScript with a sub-module `layers` (or `net.layers`) that maps
    (x - 128) / 128 to the features, as clean-fid's own file has. ConfigError where it is something else.
    Source: Parmar et al. 2022 (bicubic, antialiased, not rounded).
    """

    def __init__(self, path: Path, device: torch.device):
        from cleanfid.resize import build_resizer

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            try:
                network: Any = torch.jit.load(str(path), map_location=device).eval()
            except RuntimeError as error:
                raise ConfigError(f"{path} is not a whole TorchScript file; put {FILE} there.") from error
        inner: Any = network if hasattr(network, "layers") else getattr(network, "net", None)
        if not hasattr(inner, "layers"):
            raise ConfigError(f"{path} has no sub-module `layers`; give clean-fid's {FILE} with metric.weights=FILE.")
        self.layers, self.device, self.resize = inner.layers, device, build_resizer("clean")
        content = hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()
        self.name = f"Inception-v3 ({path.name}, BLAKE2b {content}), clean-fid resizing"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            resized = np.stack([self._resize(image) for image in images.numpy()])
        x = torch.from_numpy(resized).to(self.device)
        return self.layers((x - 128) / 128).reshape(len(images), -1).float().cpu()

    def _resize(self, image: np.ndarray) -> np.ndarray:
        hwc = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
        return self.resize(np.ascontiguousarray(hwc)).transpose(2, 0, 1)


class FeatureMetric:
    """A metric that compares the features of two sets of images. See conf/mode/fid.yaml for its settings."""

    def __init__(
        self,
        source: str = "model",
        reference: str = "train",
        reference_n: int | None = None,
        weights: str | None = None,
        truncate: bool = False,
    ):
        self.source = check.choice("metric.source", source, SOURCES)
        self.reference = check.choice("metric.reference", reference, SOURCES[1:])
        self.reference_n = None if reference_n is None else check.integer("metric.reference_n", reference_n, minimum=2)
        self.weights, self.truncate = weights, check.boolean("metric.truncate", truncate)

    def feature_sets(self, subject: Subject) -> tuple[Tensor, Tensor, dict[str, Any], list[str]]:
        """Features of the samples and of the reference, (N, 2048) each, with the facts and caveats to print."""
        n = check.integer("n", subject.n, minimum=2)
        if self.source == "model" and subject.model is None:
            raise ConfigError("metric.source=model needs a run; give run=DIR, or metric.source=test to measure the data.")
        if self.source != "model":
            n = min(n, len(subject.data.images(self.source)))
        extractor = Inception(find_inception(self.weights, subject.data.data_dir), subject.devices.device)
        reference, count = self.of_data(subject, extractor, self.reference, self.reference_n)
        if self.source == "model":
            features = subject.sample(n, lambda u0: extractor(to_bytes(u0, self.truncate)))
        else:
            features, n = self.of_data(subject, extractor, self.source, n)
        if min(n, count) < 2:
            raise ConfigError(
                f"A split of {subject.data_name} has one image only; choose another metric.source or reference."
            )
        facts = {
            "n": n,
            "source": self.source,
            "reference": f"{subject.data_name} {self.reference}, {count} images",
            "resolution": "x".join(map(str, subject.data.spec.shape[-2:])),
            "extractor": extractor.name,
        }
        few = min(n, count)
        note = f"only {few} images, fewer than the 2048 features: biased, comparable at the same number alone."
        return features, reference, facts, [note] if few < 2048 else []

    @staticmethod
    def of_data(subject: Subject, extractor: Inception, split: str, n: int | None) -> tuple[Tensor, int]:
        """Features of n images of a split (a fixed random choice), kept in data_dir/statistics for the next time."""
        images = subject.data.images(split)
        n = len(images) if n is None else min(n, len(images))
        name = f"{subject.data_name}_{split}_{n}_{images.fingerprint()}_{check_sum(extractor.name)}.npy"
        path = Path(subject.data.data_dir) / "statistics" / name
        if subject.devices.gather(torch.tensor([path.is_file()])).all():  # all processes take the same way
            return torch.from_numpy(np.load(path)), n
        chosen = sorted(shuffled(len(images), "statistics")[:n])
        features = subject.each(chosen, lambda run: extractor(images.pixels(run)), f"features of {split}")
        if subject.devices.first:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside = path.with_suffix(f".tmp{os.getpid()}")
            with beside.open("wb") as file:
                np.save(file, features.numpy())
            os.replace(beside, path)
        return features, n


def check_sum(text: str) -> str:
    """A short hash of a text."""
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
