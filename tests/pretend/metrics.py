"""Every metric on the pretend GPU: a tiny model that it is of, and tiny data."""

from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import OmegaConf

from heatgen.data.images import Pixels
from heatgen.data.module import DataModule
from heatgen.metric import features
from heatgen.metric.context import EvalContext
from heatgen.runtime.devices import Devices

from . import cases
from .gpu import CUDA, Gpu

MODES: dict[str, tuple[str, dict[str, Any]]] = {  # a mode: the model of `cases` that is measured, and options
    "calibration": ("np", {"contexts": [1], "targets": 1, "draws": 3}),
    "elbo": ("ihd x0", {"levels": None}),
    "fid": ("ihd x0", {}),
    "flow_likelihood": ("diffusion scalar", {"tolerance": 0.1, "start": 1}),
    "forward": ("ihd x0", {"levels": 3, "images": 8}),
    "inception_score": ("ihd x0", {"splits": 2}),
    "kid": ("ihd x0", {"subsets": 2, "subset_size": 4}),
    "likelihood": ("np", {"contexts": [1], "targets": 1, "draws": 3}),
    "memorisation": ("ihd x0", {}),
    "physics": ("np", {"contexts": [1], "targets": 1, "draws": 3}),
    "precision_recall": ("ihd x0", {"k": 1}),
    "reconstruction": ("ihd x0", {"draws": 3, "inputs": ["process", "white"]}),
    "score": ("diffusion scalar", {"levels": 2}),
    "spectrum": ("ihd x0", {"folds": 2}),
    "suite": ("ihd x0", {}),
}
FEW = ("calibration", "flow_likelihood", "likelihood", "reconstruction")  # long for each sample
OF_FEATURES = ("fid", "inception_score", "kid", "memorisation", "precision_recall", "suite")


def nodes() -> list[str]:
    """The modes of conf/mode."""
    return sorted(path.stem for path in (cases.CONF / "mode").glob("*.yaml"))


def extractor(*_: Any) -> Any:
    """In the place of Inception: features that are the pixels, computed on the GPU."""

    class Values:
        name, logits = "values", "pixels"

        def __call__(self, images: torch.Tensor) -> torch.Tensor:
            return images.to(CUDA).flatten(1).float().cpu()

        def probabilities(self, found: torch.Tensor) -> torch.Tensor:
            return found.softmax(1)

    return Values()


def measure(gpu: Gpu, mode: str, folder: Path) -> cases.Waits:
    """What a metric waits for, all together; its numbers are there and none is on the GPU any more."""
    name, options = MODES[mode]
    model, data = cases.make(cases.config(*cases.arguments(name)))
    if mode in OF_FEATURES:
        data = bytes_like(data)
    data.data_dir = str(folder)
    model.to(CUDA).eval()
    model.prepare(data)
    model.calibrate(data)
    devices, n = Devices(), 2 if mode in FEW else 4
    devices.device = CUDA
    metric = instantiate(OmegaConf.merge(cases.node("mode", mode).metric, options), _convert_="all")
    before, made = gpu.waits(), features.make_extractor
    features.make_extractor = extractor
    try:
        with torch.no_grad():
            result = metric(EvalContext(model, data, "tiny", devices, n, 3, seed=0, process=model.process))
    finally:
        features.make_extractor = made
    assert all(isinstance(value.value, float) for value in result.numbers)
    return gpu.waits() - before


def bytes_like(data: DataModule) -> DataModule:
    """Images of bytes, of the shape of these data."""
    images = DataModule(data.spec.shape, batch_size=cases.BATCH)
    parts = {split: torch.randint(0, 256, (16, *data.spec.shape), dtype=torch.uint8) for split in ("train", "val", "test")}
    images.read = lambda split: Pixels(parts[split])  # type: ignore[method-assign]
    return images
