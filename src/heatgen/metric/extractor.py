"""What turns images into features: Inception, a small classifier trained here, or any TorchScript file."""

import hashlib
import shutil
import tempfile
import urllib.request
import warnings
from http.client import HTTPException
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from heatgen.check import ConfigError
from heatgen.metric.classifier import Classifier, weights_file
from heatgen.runtime.files import atomic_path

FILE = "inception-2015-12-05.pt"


class Extractor(Protocol):
    """Features of images; `name` says which ones exactly, and is part of their cache's key."""

    name: str

    def __call__(self, images: Tensor) -> Tensor:
        """Bytes (B, C, H, W) -> features (B, F) float32 on the CPU."""
        ...

    def probabilities(self, features: Tensor) -> Tensor | None:
        """Features (B, F) -> class probabilities (B, classes) on the CPU; None where it knows no classes."""
        ...


def make_extractor(
    extractor: str, weights: str | None, data_dir: str, data_name: str, shape: tuple[int, ...], device: torch.device
) -> Extractor:
    """`inception` (file `weights`, or where find_inception looks), `classifier` of the data set, or a TorchScript file.

    ConfigError for a file that is missing or of another kind.
    """
    if extractor == "inception":
        return Inception(find_inception(weights, data_dir), device)
    if extractor == "classifier":
        return Classifier.load(weights_file(data_dir, data_name), data_name, shape, device)
    return Script(Path(extractor), device)


def load_script(path: Path, device: torch.device) -> torch.jit.ScriptModule:
    """The network of a TorchScript file. ConfigError if it is not one."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            output: torch.jit.ScriptModule = torch.jit.load(str(path), map_location=device).eval()
            return output
        except RuntimeError as error:
            raise ConfigError(f"{path} is not a whole TorchScript file; put the right one there.") from error


def content_hash(path: Path) -> str:
    """A short hash of a file."""
    return hashlib.blake2b(path.read_bytes(), digest_size=6).hexdigest()


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

    try:
        with atomic_path(target) as beside:
            with urllib.request.urlopen(inception_url, timeout=20) as response, beside.open("wb") as file:
                shutil.copyfileobj(response, file)
            if beside.stat().st_size != int(response.headers["Content-Length"] or beside.stat().st_size):
                raise OSError("the connection broke")
    except (OSError, HTTPException) as error:
        raise ConfigError(
            f"The Inception network is not at {target} and cannot be downloaded ({error}); "
            f"put {FILE} there, or give its place with metric.weights=FILE."
        ) from error
    return target


class Inception:
    """Features of images, bytes (B, C, H, W) -> (B, 2048) float32: clean-fid's resizing to 299x299, then Inception-v3.

    Grey images are shown in all three channels.

    Args:
        path: TorchScript with a sub-module `layers` (or `net.layers`) that maps (x - 128) / 128 to the features, as
            clean-fid's own file has.
        device: where it runs.

    Raises:
        ConfigError: for a file of another kind.

    Source:
        Parmar et al. 2022 (bicubic, antialiased, not rounded).
    """

    def __init__(self, path: Path, device: torch.device):
        from cleanfid.resize import build_resizer

        network = load_script(path, device)
        inner = network if hasattr(network, "layers") else getattr(network, "net", None)
        if inner is None or not hasattr(inner, "layers"):
            raise ConfigError(f"{path} has no sub-module `layers`; give clean-fid's {FILE} with metric.weights=FILE.")
        self.layers, self.device, self.resize = inner.layers, device, build_resizer("clean")
        self.output = getattr(inner, "output", None)  # features -> logits, where the file has it
        self.name = f"Inception-v3 ({path.name}, BLAKE2b {content_hash(path)}), clean-fid resizing"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            resized = np.stack([self._resize(image) for image in images.numpy()])
        x = torch.from_numpy(resized).to(self.device)
        output: Tensor = self.layers((x - 128) / 128).reshape(len(images), -1).float().cpu()
        return output

    def _resize(self, image: np.ndarray) -> np.ndarray:
        hwc = np.broadcast_to(image, (3, *image.shape[1:])).transpose(1, 2, 0)
        output: np.ndarray = self.resize(np.ascontiguousarray(hwc)).transpose(2, 0, 1)
        return output

    @torch.no_grad()
    def probabilities(self, features: Tensor) -> Tensor | None:
        return None if self.output is None else self.output(features.to(self.device)).softmax(1).cpu()


class Script:
    """Any TorchScript network, u (B, C, H, W) float32 in [0, 1] at the data's own size -> features (B, F)."""

    def __init__(self, path: Path, device: torch.device):
        if not path.is_file():
            raise ConfigError(f"metric.extractor must be inception, classifier or a TorchScript file, not {path}.")
        self.network, self.device = load_script(path, device), device
        self.name = f"TorchScript {path.name}, BLAKE2b {content_hash(path)}"

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        output: Tensor = self.network(images.to(self.device).float() / 255).flatten(1).float().cpu()
        return output

    def probabilities(self, features: Tensor) -> None:
        return None
