"""What turns images into features: Inception, a small classifier trained here, or any TorchScript file."""

import shutil
import tempfile
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from heatgen.basis import exact
from heatgen.check import ConfigError
from heatgen.metric.classifier import Classifier, weights_file
from heatgen.metric.resizing import resize
from heatgen.metric.torchscript import Script, content_hash, features_of, load_script
from heatgen.runtime.explain import UNUSABLE
from heatgen.runtime.files import atomic_path

FILE = "inception-2015-12-05.pt"
SIZE = 299  # pixels of the side of what Inception sees


class Extractor(Protocol):
    """Features of images; `name` says which ones exactly, and is part of their cache's key.

    `logits` says what `probabilities` is the softmax of; None where it knows no classes.
    """

    name: str

    @property
    def logits(self) -> str | None: ...

    def __call__(self, images: Tensor) -> Tensor:
        """Bytes (B, C, H, W) -> features (B, F) on the CPU, computed in float32 whatever the precision of sampling."""

    def probabilities(self, features: Tensor) -> Tensor | None:
        """Features (B, F) -> class probabilities (B, classes) on the CPU; None where it knows no classes."""


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


def find_inception(weights: str | None, data_dir: str) -> Path:
    """The Inception file: `weights`, or data_dir/inception-2015-12-05.pt, or clean-fid's place, or a download."""
    if weights is not None:
        if not isinstance(weights, str) or not Path(weights).is_file():
            raise ConfigError(f"metric.weights = {weights} is not a file; give the Inception network as TorchScript.")
        return Path(weights)
    target = Path(data_dir) / FILE
    for path in (target, Path(tempfile.gettempdir()) / FILE):
        if path.is_file():
            return path
    for place in (target, Path(tempfile.gettempdir()) / FILE):
        try:
            download(place)
            return place
        except (OSError, HTTPException) as error:
            unwritable = isinstance(error, OSError) and error.errno in UNUSABLE
            if not unwritable or place != target:
                raise ConfigError(
                    f"The Inception network is not at {target} and cannot be downloaded ({error}); "
                    f"put {FILE} there, or give its place with metric.weights=FILE."
                ) from error
    raise AssertionError


def download(target: Path) -> None:
    """Download the Inception file that clean-fid uses."""
    from cleanfid.downloads_helper import inception_url

    with atomic_path(target) as beside:
        with urllib.request.urlopen(inception_url, timeout=20) as response, beside.open("wb") as file:
            shutil.copyfileobj(response, file)
        if beside.stat().st_size != int(response.headers["Content-Length"] or beside.stat().st_size):
            raise OSError("the connection broke")


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
        network = load_script(path, device)
        inner = network if hasattr(network, "layers") else getattr(network, "net", None)
        if inner is None or not hasattr(inner, "layers"):
            raise ConfigError(f"{path} has no sub-module `layers`; give clean-fid's {FILE} with metric.weights=FILE.")
        self.layers, self.path, self.device = inner.layers, path, device
        output = getattr(inner, "output", None)
        self.output = output if isinstance(output, torch.nn.Module) else None  # features -> logits, where the file has it
        self.logits = None if self.output is None else "logits without the last layer's bias, as published"
        self.name = f"Inception-v3 ({path.name}, BLAKE2b {content_hash(path)}), clean-fid resizing"

    def __call__(self, images: Tensor) -> Tensor:
        x = resize(images.to(self.device), SIZE).expand(-1, 3, -1, -1)
        return features_of(self.layers, (x - 128) / 128, self.path)

    @torch.no_grad()
    def probabilities(self, features: Tensor) -> Tensor | None:
        if self.output is None:
            return None
        x = features.to(self.device).float()
        with exact(self.device):
            weight = logit_weight(self.output, x)
            if weight is None:
                raise ConfigError(
                    f"The sub-module `output` of {self.path} is no linear layer of {x.shape[1]} features, so that the "
                    f"Inception score cannot leave out its bias; give clean-fid's {FILE} with metric.weights=FILE."
                )
            output: Tensor = (x @ weight.mT).softmax(1).cpu()
        return output


def logit_weight(output: torch.nn.Module, x: Tensor) -> Tensor | None:
    """W (classes, F) of a last layer W x + b, whose bias the published Inception score leaves out; None for another layer.

    The matrix that it holds, or what it makes of unit vectors. A softmax behind it is seen through: logits are known but for
    a number that all classes share.

    Args:
        output: the layer, a sub-module of a TorchScript file.
        x: features (N, F), where it runs.

    Source:
        Salimans et al. 2016, in whose code logits have no bias; NVlabs call it `no_output_bias`.
    """
    tensors = [*output.parameters(), *output.buffers()]
    held = [t.flatten(1).float() for t in tensors if t.dim() > 1 and t[0].numel() == t.shape[1]]  # 1 x 1 convolutions too
    own = held[0] if len(held) == 1 and held[0].shape[1] == x.shape[1] else None

    def logits(x: Tensor) -> Tensor:
        y: Tensor = output(x).float()
        y = y.log() if bool((y >= 0).all()) and bool(((y.sum(1) - 1).abs() < 1e-3).all()) else y
        return y - y.mean(1, keepdim=True)

    probe = x[:4] + torch.linspace(-1, 1, x.shape[1], device=x.device)
    try:
        bias, found = logits(torch.zeros_like(x[:1])), logits(probe)
        weight = own if own is not None else (logits(torch.eye(x.shape[1], device=x.device)) - bias).mT
    except Exception:  # of code that is not ours
        return own
    expected = probe @ weight.mT
    gap = (expected - expected.mean(1, keepdim=True) + bias - found).abs().max()
    return weight if bool(gap <= 1e-3 * (found.abs().max() + bias.abs().max())) else None
