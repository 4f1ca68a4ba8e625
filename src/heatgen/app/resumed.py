"""The config of a run that goes on: its own, with what the command line may change."""

from collections.abc import Collection
from pathlib import Path

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from heatgen.app.load import read_config
from heatgen.app.options import dotted
from heatgen.app.trust import forget_measurements, named_targets
from heatgen.check import ConfigError, did_you_mean


def resumed(
    run_dir: Path, overrides: list[str], groups: Collection[str], trust: bool = False, named: Collection[str] = ()
) -> DictConfig:
    """The config of a run that goes on: its own, with the values (not the groups) of this command line.

    Unless there is `trust`, what is measured at its end is what this command line says.
    """
    cfg = read_config(run_dir, trust, {*named, *named_targets(overrides)})
    cfg.trust = trust
    if not trust:
        forget_measurements(cfg, run_dir, overrides)
    OmegaConf.set_struct(cfg, True)
    for override in OverridesParser.create().parse_overrides(overrides):
        key, word = override.key_or_group, str(override.input_line)
        if key in groups:
            raise ConfigError(f"resume keeps the run's own {key}; remove {word}, or start a new run with it.")
        for target in (key, f"data.{key}") if key == "data_dir" else (key,):
            try:
                OmegaConf.update(cfg, target, override.value())
            except Exception as error:
                hint = did_you_mean(key, dotted(cfg))
                raise ConfigError(f"{key} is not a key of the resumed run's config{hint or f'; remove {word}.'}") from error
    return cfg
