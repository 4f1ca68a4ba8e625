"""An exported model: one file of tensors (safetensors), with the config of its run in its metadata."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from heatgen.check import ConfigError, first_nonfinite
from heatgen.runtime.files import atomic_path

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX = ".safetensors"
FILE = f"model{SUFFIX}"  # in the folder of an export
KEY = "heatgen_config"  # of the metadata
BESIDE = "sampling."  # begins the names of tensors that are no weights: what sampling needs of the data
DATA = "data.h5"  # in a run's folder: its data, where it was given them in memory
LONGEST = 2**17  # of a config


def file_of(run: Path) -> Path | None:
    """The exported model that a path stands for, itself or in it; None for a run."""
    if run.suffix == SUFFIX and run.is_file():
        return run
    return run / FILE if (run / FILE).is_file() and not (run / "config.yaml").is_file() else None


def in_memory(data: object) -> bool:
    """Whether the config of data is of what was given in Python, which stands in the folder of the run."""
    return isinstance(data, Mapping) and Path(str(data.get("path"))).name == DATA


def package(name: str) -> ModuleType:
    """A package of the extra `hub`. ConfigError where it is missing."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        top = name.partition(".")[0]
        raise ConfigError(f"This needs the package {top}; install it with pip install 'heatgen[hub]'.") from error


def write(path: Path, weights: "Mapping[str, Tensor]", beside: "Mapping[str, Tensor]", config: str, version: str) -> None:
    """Write weights, what stands beside them, and a config, whole or not at all."""
    named = {**weights, **{f"{BESIDE}{name}": tensor for name, tensor in beside.items()}}
    own = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in named.items()}  # none shares memory
    content = package("safetensors.torch").save(own, metadata={"format": "pt", "heatgen": version, KEY: config})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def config_text(path: Path) -> str:
    """The config in the metadata of an exported model. ConfigError where the file is none."""
    safe_open = package("safetensors").safe_open
    try:
        with safe_open(path, framework="pt") as file:
            config = (file.metadata() or {}).get(KEY)
    except Exception as error:  # of the package's own kind, or of the system
        raise damaged(path) from error
    if config is None:
        raise ConfigError(f"{path} has no config of heatgen in its metadata; give one that heatgen export has written.")
    if len(config) > LONGEST:
        raise ConfigError(f"{path} has a config of {len(config)} letters, as no run does; give another file.")
    return str(config)


def read(path: Path) -> dict[str, Any]:
    """An exported model in the shape of a checkpoint; what stands beside the weights under the key `sampling`.

    ConfigError if it is cut short, foreign or not finite.
    """
    load = package("safetensors.torch").load_file
    try:
        tensors: dict[str, Tensor] = load(path)
    except Exception as error:
        raise damaged(path) from error
    if bad := first_nonfinite(tensors):
        raise ConfigError(f"{path} holds NaN or inf (first in {bad}); use another file.")
    beside = {name.removeprefix(BESIDE): tensors.pop(name).clone() for name in list(tensors) if name.startswith(BESIDE)}
    return {"state_dict": tensors, "callbacks": {}, "sampling": beside}


def damaged(path: Path) -> ConfigError:
    """The sentence for a file that is no safetensors."""
    return ConfigError(f"{path} is cut short or no file of safetensors; get it again, or export its run again.")
