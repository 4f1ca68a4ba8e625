"""What tests of features share: images of one byte each, stand-ins for networks, and what is measured."""

from collections import OrderedDict
from types import SimpleNamespace

import torch
from torch import nn

from heatgen.data.images import Pixels
from heatgen.data.module import DataModule
from heatgen.metric.context import EvalContext
from heatgen.model.interface import Calls
from heatgen.runtime.devices import Devices

CPU = torch.device("cpu")


def script(path, *layers, name="layers"):
    """A TorchScript file with the sub-module `layers`, as the Inception file has."""
    module = nn.Sequential(OrderedDict({name: nn.Sequential(*layers)}))
    torch.jit.save(torch.jit.script(module), str(path))
    return path


def flat(values, shape=(1, 5, 6)):
    """Images that are of one byte each."""
    return torch.tensor(values, dtype=torch.uint8).reshape(-1, 1, 1, 1).expand(-1, *shape).contiguous()


def ctx(tmp_path, n=100, model=None, process=None, labels=None, batch_size=4, **splits):
    """Bytes by split; labels: split -> classes."""
    shape = next(iter(splits.values())).shape[1:]
    data = DataModule(shape=list(shape), data_dir=str(tmp_path))
    data.read = lambda split: Pixels(splits[split], (labels or {}).get(split))
    return EvalContext(model, data, "fake", Devices(accelerator="cpu"), n, batch_size, seed=0, process=process)


def faithful(way_back):
    """A model whose initial states are the training images themselves, way_back(u) its samples."""
    toy = SimpleNamespace(
        process=SimpleNamespace(num_levels=1),
        num_steps=1,
        initial_state=lambda u0, noise: u0,
        generate=lambda u, noise, on_step=None: way_back(u),
        calls=Calls(),
        noise_label=lambda: "0.25",
    )
    toy.bound = lambda noise: toy
    return toy


class Values:
    """An extractor whose features are the bytes of an image, and whose classes are what `probabilities` makes of them."""

    name = "values"

    def __init__(self, probabilities=None):
        self.probabilities, self.logits = probabilities or (lambda features: None), probabilities and "the bytes"

    def __call__(self, images):
        return images.flatten(1).float()
