"""What conf/ can ask for in ${...}: the options of the groups, how heatgen is called."""

from omegaconf import OmegaConf

from heatgen.app.options import describe_groups
from heatgen.runtime.command import call


def register() -> None:
    """Tell OmegaConf of them; once is enough, twice is no harm."""
    OmegaConf.register_new_resolver("heatgen.groups", describe_groups, replace=True)
    OmegaConf.register_new_resolver("heatgen.call", call, replace=True)
