"""What conf/ can ask for in ${...}: the options of the groups, how heatgen is called, the shape of a packed file."""

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


def packed_shape(path: object) -> ListConfig:
    """The shape of the images of a packed file; where there is none to read, that of data=image_folder, until the data say
    what is wrong with it."""
    from heatgen.data.packed import shape_of

    found = shape_of(absolute(path)) if isinstance(path, str) and path else None
    return ListConfig(list(found or PICTURES))
