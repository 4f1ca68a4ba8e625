"""The released weights of score matching with physics: a pickle of NumPy arrays, read without running anything of it."""

import io
import math
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from heatgen.app.foreign import Foreign
from heatgen.check import ConfigError
from heatgen.model.module import Method
from heatgen.model.smdp import SMDP

LARGEST = 2**28  # bytes of a file
KINDS = {"f4": torch.float32, "f8": torch.float64}
ENCODER, DECODER = "conv2_d", "conv2_d_transpose"
BLOCKS = (1, 2, 4, 5)  # of the decoder; the result of the third is thrown away
WORDS = ("experiment=smdp_released",)


class Kind:
    """What stands for a dtype."""

    def __init__(self, name: str, *_: object):
        self.name, self.order = name, "<"

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self.order = state[1]


class Array:
    """What stands for an array until it is a tensor: its shape, kind and bytes."""

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, self.shape, self.kind, self.fortran, self.content = state

    def tensor(self) -> Tensor:
        """The array, float32. ValueError unless it is one of little-endian floats as large as it says."""
        kind = KINDS.get(getattr(self.kind, "name", ""))
        if kind is None or self.kind.order != "<" or self.fortran or not isinstance(self.content, bytes):
            raise ValueError("an array of other numbers than floats")
        if math.prod(self.shape) * kind.itemsize != len(self.content):
            raise ValueError("an array of another size than it says")
        return torch.frombuffer(bytearray(self.content), dtype=kind).reshape(tuple(self.shape)).float()


def encoded(text: str, codec: str) -> bytes:
    """Bytes, as pickles of Python 2 write them."""
    if codec != "latin1":
        raise pickle.UnpicklingError(f"bytes in {codec}")
    return text.encode("latin1")


ALLOWED: dict[tuple[str, str], Callable[..., object]] = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Kind,
    ("_codecs", "encode"): encoded,
    ("numpy.core.multiarray", "_reconstruct"): lambda *_: Array(),
    ("numpy._core.multiarray", "_reconstruct"): lambda *_: Array(),
}


class Unpickler(pickle.Unpickler):
    """One that knows containers, numbers and stand-ins of arrays, and refuses every other name."""

    def find_class(self, module: str, name: str) -> Callable[..., object]:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it names {module}.{name}, which is not run") from None


def read(path: Path) -> Foreign:
    """The released weights. ConfigError where the file is damaged, holds code, or weights of another network."""
    layers = load(path)
    try:
        weights = ours(layers)
        return Foreign(WORDS, weights, weights, None, in_units)
    except (LookupError, RuntimeError) as error:
        reason = f"{error.args[0]} is missing" if isinstance(error, LookupError) else str(error).splitlines()[0]
        raise ConfigError(f"{path} does not hold the released network ({reason}); is it another's?") from error


def load(path: Path) -> dict[str, dict[str, Tensor]]:
    """Layer -> {"w", "b"} -> tensor. ConfigError for anything else, of which nothing is run."""
    if path.stat().st_size > LARGEST:
        raise ConfigError(f"{path} has more than {LARGEST} bytes, and the released weights have 1.3 MB; is it another file?")
    try:
        content = Unpickler(io.BytesIO(path.read_bytes())).load()
        return {str(layer): {str(key): array.tensor() for key, array in parts.items()} for layer, parts in content.items()}
    except Exception as error:  # a stranger's bytes can make a pickle raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        reason = "it holds other things" if isinstance(error, AttributeError) else reason
        raise ConfigError(f"{path} is cut short or no pickle of arrays alone ({reason}); get it again.") from error


def ours(layers: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The weights by their names in `net=encoder_decoder` with kernels of 5 x 5.

    Their 4 x 4 kernels see one pixel less, before the centre in convolutions and behind it in transposed ones: a line of 0.
    """
    found: dict[str, Tensor] = {}

    def put(name: str, layer: str) -> None:
        weight, bias = layers[layer]["w"], layers[layer]["b"].flatten()
        order, pad = ((2, 3, 0, 1), (0, 1, 0, 1)) if layer.startswith(DECODER) else ((3, 2, 0, 1), (1, 0, 1, 0))
        weight = weight.permute(order)
        weight = F.pad(weight, pad) if weight.shape[-1] == 4 else weight
        found.update({f"net.{name}.weight": weight.contiguous(), f"net.{name}.bias": bias})

    put("in_conv", ENCODER)
    for block in range(5):
        for half in (0, 1):
            put(f"encoder.{block}.{2 * half}", f"{ENCODER}_{2 * block + half + 1}")
    put("middle.0", f"{ENCODER}_11")
    put("middle.1", DECODER)
    for place, block in enumerate(BLOCKS):
        for half in (0, 1):
            put(f"decoder.{place}.{2 * half}", f"{DECODER}_{2 * block + half - 1}")
    put("out_conv", f"{ENCODER}_12")
    return found


def in_units(weights: Mapping[str, Tensor], model: Method) -> Mapping[str, Tensor]:
    """The weights for our units: time as t / t_K in place of t, and half the output in units of q.

    They step by g^2 / 2 dt s where we step by Q^2 s, so their s is twice ours. ConfigError for levels at other times.
    """
    assert isinstance(model, SMDP)
    if model.process.times.diff().std() > 1e-6 * model.process.times[-1]:
        raise ConfigError("The released weights see times t, so that levels are uniform in it; use forward.spacing=uniform.")
    first = weights["net.in_conv.weight"].clone()
    first[:, -1] *= float(model.process.times[-1])
    scale = model.unit / 2
    last = {f"net.out_conv.{key}": weights[f"net.out_conv.{key}"] * scale for key in ("weight", "bias")}
    return {**weights, "net.in_conv.weight": first, **last}
