"""The config that arguments of the command line stand for, without running anything."""

from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from heatgen.app import mistakes, resolvers
from heatgen.app.options import SearchPath, check_choices
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
    resolvers.register()
    path = SearchPath(config_dir=config_dir)
    before = HydraConfig.instance().cfg
    try:
        cfg = path.load(verb, overrides)
        HydraConfig.instance().set_config(cfg)
        check_choices(HydraConfig.get().runtime.choices)
        OmegaConf.set_struct(cfg, False)
        del cfg["hydra"]  # which HydraConfig goes on answering for
        OmegaConf.resolve(cfg)
    except (HydraException, OmegaConfBaseException) as error:
        sentence = mistakes.diagnose(verb, overrides, path) or mistakes.sentence(error)
        raise ConfigError(sentence) from error
    finally:
        HydraConfig.instance().cfg = before
    OmegaConf.set_struct(cfg, True)
    return cfg
