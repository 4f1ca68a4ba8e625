"""Checkpoints of inverse heat dissipation's own code: their names, and the network that they are of.

A file is {"optimizer", "model", "step", "ema"}: `model` the weights by name, behind `module.` where several GPUs trained;
`ema` the averages in the same order, without names. What else its config said (data, K, widths of blur) is not in it.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf
from torch import Tensor

from heatgen.app.compose import compose
from heatgen.app.folders import by_key
from heatgen.app.foreign import Foreign
from heatgen.app.options import CONF
from heatgen.check import ConfigError
from heatgen.runtime import directory

NAMES = {  # theirs -> ours, one after the other; of blocks on the way down and up see `ours`
    r"^module\.": "",
    r"^time_embed\.": "embed.",
    r"^input_blocks\.0\.0\.": "in_conv.",
    r"^middle_block\.0\.": "middle.0.block.",
    r"^middle_block\.1\.": "middle.0.attention.",
    r"^middle_block\.2\.": "middle.1.block.",
    r"^out\.": "out_conv.",
    r"\.in_layers\.": ".first.",
    r"\.emb_layers\.": ".embed.",
    r"\.out_layers\.": ".second.",
    r"\.skip_connection\.": ".skip.",
    r"\.proj_out\.": ".project.",
}
FIXED = ("model.parametrisation=residual", "model.train_top_level=false", "net.norm_groups=32")  # of their code
UNSAID = ("data", "forward.num_levels", "forward.sigma_max")  # in no file


def read(path: Path, settings: Sequence[str]) -> Foreign:
    """A checkpoint, and the words of heatgen train that make its model.

    Args:
        path: the file.
        settings: what the user says of it.

    Raises:
        ConfigError: it is damaged or another's, or it fits several published settings, or none and the user says no more.
    """
    weights, shadow, step = load(path)
    channels, network = network_of(weights, path)
    published = published_of(channels, network, by_key(settings), path)
    words = [*published, *(f"net.{key}={str(value).replace(' ', '')}" for key, value in network.items()), *FIXED]
    names = [f"net.{ours(name, weights)}" for name in weights]
    raw, averages = (dict(zip(names, map(Tensor.float, values), strict=True)) for values in (weights.values(), shadow))
    return Foreign(words, raw, averages, step)


def load(path: Path) -> tuple[dict[str, Tensor], list[Tensor], int]:
    """The weights by their names, their averages in the same order, and the step. ConfigError for any other file.

    It may hold tensors and numbers, also those of NumPy, which the learning rates are.
    """
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 6):
        raise ConfigError(f"An import needs PyTorch 2.6 or newer, and this is {torch.__version__}; install that.")
    scalar = np.float64(0).__reduce__()[0]
    names: list[Any] = [(scalar, f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")]
    with torch.serialization.safe_globals([*names, np.dtype, type(np.dtype("f8"))]):
        state: dict[str, Any] = directory.read_checkpoint(path)
    weights, averages, step = state.get("model"), state.get("ema"), state.get("step")
    if not isinstance(weights, Mapping) or not isinstance(step, int) or not tensors(list(weights.values())):
        raise ConfigError(f"{path} holds no weights (model) and step; give a checkpoint of inverse heat dissipation.")
    shadow = averages.get("shadow_params") if isinstance(averages, Mapping) else None
    if not isinstance(shadow, list) or not tensors(shadow) or len(shadow) != len(weights):
        raise ConfigError(f"{path} lacks averages (ema) of its {len(weights)} weights, which samples are drawn with.")
    return {str(name).removeprefix("module."): tensor for name, tensor in weights.items()}, shadow, step


def tensors(values: Sequence[object]) -> bool:
    """Whether these are tensors, at least one."""
    return bool(values) and all(isinstance(value, Tensor) for value in values)


def network_of(weights: Mapping[str, Tensor], path: Path) -> tuple[int, dict[str, object]]:
    """The channels of an image, and the settings of the U-Net that the way down has. ConfigError for another network.

    On the way down are residual blocks, perhaps with attention, and between resolutions a convolution `op`.
    """
    first, number = weights.get("input_blocks.0.0.weight"), 1
    widths: list[list[int]] = [[]]
    attention: set[int] = set()
    while (conv := weights.get(f"input_blocks.{number}.0.in_layers.2.weight")) is not None or (
        f"input_blocks.{number}.0.op.weight" in weights
    ):
        if conv is None:
            widths.append([])
        else:
            widths[-1].append(len(conv))
            attention |= {len(widths) - 1} if f"input_blocks.{number}.1.qkv.weight" in weights else set()
        number += 1
    if first is None or first.dim() != 4 or any(len(w) != len(widths[0]) or len(set(w)) != 1 for w in widths):
        raise ConfigError(f"{path} does not hold the U-Net of inverse heat dissipation; is it of another code?")
    return first.shape[1], {
        "model_channels": len(first),
        "multipliers": [level[0] // len(first) for level in widths],
        "num_res_blocks": len(widths[0]),
        "attention_levels": sorted(attention),
    }


def published_of(channels: int, network: Mapping[str, object], given: Mapping[str, str], path: Path) -> list[str]:
    """experiment=NAME of the published settings whose network this is; nothing where the user says what they would.

    ConfigError where there are several, or none and the user does not say what is needed.
    """
    if "experiment" in given:
        return []
    found, common = [], OmegaConf.load(CONF / "experiment" / "_ihd.yaml")
    for file in sorted((CONF / "experiment").glob("ihd_*.yaml")):
        net = OmegaConf.select(OmegaConf.merge(common, OmegaConf.load(file)), "net")
        if any(net[key] != value for key, value in network.items()):
            continue
        cfg = compose(f"experiment={file.stem}")
        fits = cfg.data.shape[0] == channels and given.get("data", f"data={cfg.data_name}") == f"data={cfg.data_name}"
        found += [file.stem] if fits else []
    if len(found) > 1:
        raise ConfigError(f"{path} may be of {' or '.join(found)}; say which with experiment=NAME.")
    if not found and (lacking := [key for key in UNSAID if key not in given]):
        what = ", ".join(f"{key}=VALUE" for key in lacking)
        raise ConfigError(f"{path} has the network of no published settings for these data; give {what}, as it was trained.")
    return [f"experiment={name}" for name in found]


def ours(name: str, weights: Mapping[str, Tensor]) -> str:
    """Our name of one of their weights; itself where there is none.

    Convolutions between resolutions stand by themselves in ours; on the way up they are the end of a block in theirs.
    """
    for theirs, mine in NAMES.items():
        name = re.sub(theirs, mine, name)
    found = re.fullmatch(r"(in|out)put_blocks\.(\d+)\.(\d+)\.((?:op|conv)\.)?(.+)", name)
    if found is None:
        return name
    number, part = int(found[2]), "attention" if int(found[3]) else "block"
    if found[1] == "in":
        place = f"down.{number - 1}"
    else:
        convs = (re.fullmatch(r"output_blocks\.(\d+)\.\d+\.conv\.weight", other) for other in weights)
        place = f"up.{number + sum(int(conv[1]) < number for conv in convs if conv) + bool(found[4])}"
    return f"{place}.{found[5]}" if found[4] else f"{place}.{part}.{found[5]}"
