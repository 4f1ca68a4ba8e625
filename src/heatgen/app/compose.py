"""The config that arguments of the command line stand for, without running anything."""

import json
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from heatgen.app import mistakes, resolvers
from heatgen.app.options import SearchPath, check_choices
from heatgen.app.quoting import argument
from heatgen.check import ConfigError


def compose(*overrides: str, verb: str = "train", config_dir: str | None = None) -> DictConfig:
    """The config that `heatgen VERB OVERRIDES...` would work with, its interpolations resolved.

    Args:
        overrides: as on the command line, such as "model=ihd", "data=digits".
        verb: train, sample or evaluate.
        config_dir: a folder with more options, as --config-dir.

    Raises:
        ConfigError: an override names an option or a key that does not exist.
    """
    with command(verb, overrides, SearchPath(config_dir=config_dir)) as cfg:
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]  # which HydraConfig goes on answering for
        OmegaConf.resolve(cfg)
    OmegaConf.set_struct(cfg, True)
    return cfg


@contextmanager
def command(verb: str, overrides: Sequence[str], path: SearchPath) -> Iterator[DictConfig]:
    """The config of a command with Hydra's own part, for which HydraConfig answers within.

    ConfigError in place of what Hydra and OmegaConf raise.
    """
    resolvers.register()
    before = HydraConfig.instance().cfg
    try:
        cfg = path.load(verb, overrides)
        HydraConfig.instance().set_config(cfg)
        check_choices(HydraConfig.get().runtime.choices)
        yield cfg
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(mistakes.diagnose(verb, overrides, path) or mistakes.sentence(error)) from error
    finally:
        HydraConfig.instance().cfg = before


def words_of(options: Mapping[str, object]) -> list[str]:
    """Options as words of the command line: KEY=VALUE each, or KEY.NAME=VALUE for those of a mapping."""
    flat: dict[str, object] = {}
    for key, value in options.items():
        flat |= {f"{key}.{name}": one for name, one in value.items()} if isinstance(value, Mapping) else {key: value}
    return [
        argument(key, os.fspath(value)) if isinstance(value, (str, os.PathLike)) else f"{key}={as_json(key, value)}"
        for key, value in flat.items()
    ]


def as_json(key: str, value: object) -> str:
    """A number, of NumPy too, a truth value, None or a list as Hydra reads it. ConfigError for anything else."""
    try:
        return json.dumps(value, default=operator.methodcaller("item"))
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{key} must be text, a number or a list, not {type(value).__name__}.") from error
