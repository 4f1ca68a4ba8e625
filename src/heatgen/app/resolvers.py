"""What conf/ can ask for in ${...}: the parts of --help, how heatgen is called, a packed file's shape, a U-Net's widths."""

import re
from collections.abc import Sequence
from pathlib import Path

from omegaconf import ListConfig, OmegaConf

from heatgen.app import menu
from heatgen.runtime.command import call
from heatgen.runtime.files import absolute

PICTURES = (3, 64, 64)


def register() -> None:
    """Tell OmegaConf of them; once is enough, twice is no harm."""
    OmegaConf.register_new_resolver("heatgen.groups", menu.groups, replace=True)
    OmegaConf.register_new_resolver("heatgen.options", menu.options, replace=True)
    OmegaConf.register_new_resolver("heatgen.keys", menu.keys, replace=True)
    OmegaConf.register_new_resolver("heatgen.call", call, replace=True)
    OmegaConf.register_new_resolver("heatgen.packed_shape", packed_shape, replace=True)
    OmegaConf.register_new_resolver("heatgen.multipliers", multipliers, replace=True)
    OmegaConf.register_new_resolver("heatgen.data_name", data_name, replace=True)


def data_name(option: object, path: object) -> str:
    """What results, statistics and classifiers of the data are kept under: the option, and the stem of a packed file."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(path).stem)[:60].strip("._-") if isinstance(path, str) else ""
    return f"packed-{stem}" if option == "packed" and stem else str(option)


def packed_shape(path: object) -> ListConfig:
    """The shape of the images of a packed file; where there is none to read, that of data=image_folder, until the data say
    what is wrong with it."""
    from heatgen.data.packed import header_of

    header = header_of(absolute(path)) if isinstance(path, str) and path else None
    return ListConfig(list(PICTURES if header is None else header.shape))


def multipliers(shape: Sequence[int]) -> ListConfig:
    """The widths of a small U-Net for fields of a shape: 1, 2, 2, as far as both sides can be halved and stay at least 2."""
    height, width, widths = *shape[-2:], [1]
    while len(widths) < 3 and height % 2 == width % 2 == 0 and min(height, width) >= 4:
        height, width, widths = height // 2, width // 2, [*widths, 2]
    return ListConfig(widths)
