"""From a config to objects: the data, the forward process, the sampler and the model that is wired of them."""

import inspect
import logging
import re
import warnings
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from heatgen import check
from heatgen.check import ConfigError
from heatgen.runtime import launch

log = logging.getLogger("heatgen")


def instantiate(node: DictConfig, **objects: Any) -> Any:
    """What a config describes; `objects` are arguments that are already built. ConfigError for an unknown option."""
    factory = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    try:
        return factory(**objects)
    except TypeError as error:
        unknown = re.search(r"(\w+)\(\) got an unexpected keyword argument '(\w+)'", str(error))
        if unknown is None:
            raise
        options = list(inspect.signature(factory.func).parameters)
        hint = check.did_you_mean(unknown[2], options)
        raise ConfigError(f"{node._target_} has no option {unknown[2]!r}{hint or '; remove it.'}") from error


def build_data(node: DictConfig) -> Any:
    """The data of a config's node `data`; what it recommends to other groups is not its own concern."""
    settings: Any = OmegaConf.to_container(node, resolve=True)
    return instantiate(OmegaConf.create({key: value for key, value in settings.items() if key != "recommended"}))


def build_process(node: DictConfig) -> Any:
    """The forward process of a config's node `forward`, checked; what it warns of is logged."""
    process = instantiate(node)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        process.validate()
    if launch.rank() == 0:
        for warning in caught:
            log.warning("Note: %s", warning.message)
    return process


def build_sampler(node: DictConfig) -> Any:
    """The sampler of a config's node `sampler` with its options, to be called with (model, u_K, times, ...)."""
    return hydra.utils.instantiate(node, _partial_=True, _convert_="all")


def build(cfg: DictConfig) -> tuple[Any, Any]:
    """The model and the data of a training config, wired together and checked; what the model chose goes into `cfg`."""
    data, process = build_data(cfg.data), build_process(cfg.forward)
    sampler = build_sampler(cfg.sampler)
    model = instantiate(cfg.model, process=process, net=instantiate(cfg.net), sampler=sampler)
    if model.uses_sampler:
        from heatgen.sampler.interface import check_pair

        check_pair(sampler, model)
    for key, value in model.chosen.items():
        OmegaConf.update(cfg, f"model.{key}", value)
        if launch.rank() == 0:
            log.info("model.%s=auto chose %s for forward=%s", key, value, process.name)
    return model, data
