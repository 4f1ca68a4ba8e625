"""What conf/ can ask for in ${...}: options of groups, how heatgen is called, the shape and the name of a packed file."""

import re
from pathlib import Path

from omegaconf import ListConfig, OmegaConf

from heatgen.app.options import describe_groups
from heatgen.runtime.command import call
from heatgen.runtime.files import absolute

PICTURES = (3, 64, 64)


def register() -> None:
    """Tell OmegaConf of them; once is enough, twice is no harm."""
    OmegaConf.register_new_resolver("heatgen.groups", describe_groups, replace=True)
    OmegaConf.register_new_resolver("heatgen.call", call, replace=True)
    OmegaConf.register_new_resolver("heatgen.packed_shape", packed_shape, replace=True)
    OmegaConf.register_new_resolver("heatgen.data_name", data_name, replace=True)


def data_name(option: object, path: object) -> str:
    """What results, statistics and classifiers of the data are kept under: the option, and the stem of a packed file."""
    stem = re.sub(r"[^A-Za-z0-9_.-]+", "_", Path(path).stem)[:60].strip("._-") if isinstance(path, str) else ""
    return f"packed-{stem}" if option == "packed" and stem else str(option)


def packed_shape(path: object) -> ListConfig:
    """The shape of the images of a packed file; where there is none to read, that of data=image_folder, until the data say
    what is wrong with it."""
    from heatgen.data.packed import shape_of

    found = shape_of(absolute(path)) if isinstance(path, str) and path else None
    return ListConfig(list(found or PICTURES))
