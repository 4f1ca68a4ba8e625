"""A small classifier of small images as feature extractor; python -m heatgen.app.classifier trains one.

Its weights are in <data-dir>/extractors/<data set>.pt, where metric.extractor=classifier looks for them. Inception was
made for large colour photographs; for 28x28 grey images a network that was trained on them sees more, and costs a
hundredth.
"""

import os
import shlex
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from heatgen import check
from heatgen.basis import exact
from heatgen.check import ConfigError
from heatgen.data.module import DataModule
from heatgen.data.stream import Stream, StreamSteps
from heatgen.metric.torchscript import content_hash
from heatgen.noise import batches
from heatgen.runtime.directory import read_checkpoint

FEATURES = 128
BATCH = 128
UNLABELLED = ("image_folder", "packed", "memory", "huggingface")  # data that are known by a path alone, or none


def weights_file(data_dir: str, data_name: str) -> Path:
    """Where the classifier of a data set is kept."""
    return Path(data_dir) / "extractors" / f"{data_name}.pt"


class ConvNet(nn.Module):
    """u (B, C, H, W) in [0, 1] -> features (B, 128) -> logits (B, classes): three convolutions and two linear layers."""

    def __init__(self, shape: tuple[int, ...], classes: int):
        super().__init__()
        channels, height, width = shape
        corner = -(-height // 4) * -(-width // 4)
        self.features = nn.Sequential(
            nn.Conv2d(channels, 32, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(64, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * corner, FEATURES),
            nn.ReLU(),
        )
        self.logits = nn.Linear(FEATURES, classes)

    def forward(self, u: Tensor) -> Tensor:
        output: Tensor = self.logits(F.dropout(self.features(u), 0.3, self.training))
        return output


class Classifier:
    """Features of images by a trained ConvNet; `load` reads one."""

    logits = "logits of the classifier, with their bias"

    def __init__(self, network: ConvNet, name: str, device: torch.device):
        self.network, self.name, self.device = network.to(device).eval(), name, device

    @classmethod
    def load(cls, path: Path, data_name: str, shape: tuple[int, ...], device: torch.device) -> "Classifier":
        """The classifier in a file. ConfigError where it is missing, or was trained on images of another shape."""
        place = path.parent.parent
        usual = Path(os.environ.get("HEATGEN_DATA", "data")).resolve()
        words = [data_name] if place.resolve() == usual else [data_name, "--data-dir", str(place)]
        again = f"train it with python -m heatgen.app.classifier {shlex.join(words)}"
        if data_name.partition("-")[0] in UNLABELLED:
            again = "that is trained for data sets with labels; use metric.extractor=inception, or a TorchScript file"
        if not path.is_file():
            raise ConfigError(f"metric.extractor=classifier needs {path}; {again}.")
        try:
            state: object = read_checkpoint(path)
        except ConfigError as error:
            raise ConfigError(f"{path} is not a classifier of whole and finite numbers; {again}.") from error
        if not isinstance(state, dict) or not {"weights", "shape", "classes", "accuracy"} <= set(state):
            raise ConfigError(f"{path} is not a classifier; {again}.")
        try:
            trained_on = check.shape("shape", state["shape"])
            classes = check.integer("classes", state["classes"], minimum=1)
            accuracy = check.number("accuracy", state["accuracy"], minimum=0, maximum=1)
        except ConfigError as error:
            raise ConfigError(f"{path} is not a whole classifier ({str(error).rstrip('.')}); {again}.") from error
        if trained_on != tuple(shape):
            raise ConfigError(
                f"{path} is for images of shape {list(trained_on)}, not {list(shape)}; {again}, or use another extractor."
            )
        try:
            network = ConvNet(trained_on, classes)
            network.load_state_dict(state["weights"])
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} has other weights than a classifier of {classes} classes; {again}.") from error
        name = f"classifier of {data_name} (test accuracy {accuracy:.4f}, BLAKE2b {content_hash(path)})"
        return cls(network, name, device)

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        with exact(self.device):
            output: Tensor = self.network.features(images.to(self.device).float() / 255).cpu()
        return output

    @torch.no_grad()
    def probabilities(self, features: Tensor) -> Tensor:
        with exact(self.device):
            output: Tensor = self.network.logits(features.to(self.device).float()).softmax(1).cpu()
        return output


def train(data: DataModule, epochs: int, seed: int) -> dict[str, object]:
    """What the file of a classifier holds: the weights, shape and classes of a trained ConvNet, and its test accuracy.

    With Adam and a learning rate that falls to 0. ConfigError for a data set without labels.
    """
    images, test = data.images("train"), data.images("test")
    if images.labels is None or test.labels is None:
        raise ConfigError(f"{type(data).__name__} has no labels here, so no classifier can be trained on it.")
    labels, classes = images.labels, int(images.labels.max()) + 1
    torch.manual_seed(seed)
    network = ConvNet(data.spec.shape, classes)
    steps = -(-len(images) * epochs // BATCH)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    stream = Stream(images, seed)
    for positions in tqdm(StreamSteps(BATCH, lambda: (0, 0), steps), desc="classifier", mininterval=1):
        batch = stream.__getitems__(positions)
        loss = F.cross_entropy(network(batch["u0"]), labels[batch["index"]])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()
    with torch.no_grad():
        right = [
            (network(data.get("test", batch)).argmax(1) == test.labels[list(batch)]).double()
            for batch in batches(range(len(test)), 1000)
        ]
    accuracy = torch.cat(right).mean().item()
    return {"weights": network.state_dict(), "shape": list(data.spec.shape), "classes": classes, "accuracy": accuracy}
