"""net=none: no network, for models that need none."""

from typing import NoReturn

from torch import nn

from heatgen.check import ConfigError


class NullNet(nn.Module):
    """It has no weights; a model that calls it needs another network (ConfigError)."""

    def __init__(self) -> None:  # so that an option that it does not have is refused by its name
        super().__init__()

    def forward(self, *_: object) -> NoReturn:
        raise ConfigError("net=none is for model=oracle; this model needs a network, such as net=unet.")
