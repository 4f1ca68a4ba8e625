"""From a config to objects: the data, the forward process, the sampler and the model that is wired of them."""

import inspect
import logging
import pydoc
import re
import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import hydra
from omegaconf import DictConfig, ListConfig, OmegaConf

from heatgen import check
from heatgen.app import resolvers
from heatgen.app.initial import freeze
from heatgen.app.plain import plain
from heatgen.app.requests import FILES, file_path
from heatgen.app.sampler_request import GRID
from heatgen.check import ConfigError
from heatgen.runtime import ranks

if TYPE_CHECKING:
    import torch

    from heatgen.data.module import DataModule
    from heatgen.forward.process import ForwardProcess
    from heatgen.model.module import Method
    from heatgen.sampler.interface import Sampler

log = logging.getLogger("heatgen")
resolvers.register()  # for the shape of packed data


def instantiate(node: DictConfig, **objects: object) -> Any:
    """What a node of a config describes.

    Args:
        node: `_target_` and its options.
        objects: arguments that are built already.

    Raises:
        ConfigError: the target cannot be imported, or has no such option; so for the nodes in it.
    """
    if "_target_" not in node:
        raise ConfigError(f"{node._get_full_key(None)} has no _target_; choose the option that it belongs to, too.")
    check_options(node)
    factory = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    return factory(**objects)


def check_options(node: DictConfig | ListConfig) -> None:
    """ConfigError for a target that cannot be imported or an option that it does not have, here and in what is inside."""
    keys = range(len(node)) if isinstance(node, ListConfig) else list(node)
    for key in keys:
        if not OmegaConf.is_missing(node, key) and isinstance(node[key], (DictConfig, ListConfig)):
            check_options(node[key])
    if not isinstance(node, DictConfig) or "_target_" not in node:
        return
    place = node._get_full_key(None)
    if not isinstance(node.get("_partial_", False), bool):
        raise ConfigError(f"{place}._partial_ must be true or false, not {node._partial_!r}.")
    options = options_of_target(target := locate(node._target_))
    if options is None:
        return
    for key in map(str, node):
        if key not in options and not (key.startswith("_") and key.endswith("_")):
            hint = check.did_you_mean(key, options)
            raise ConfigError(f"{node._target_} has no option {key!r}{hint or f'; remove {place}.{key}.'}")
    for key in parts_of(target):
        if key in node and not OmegaConf.is_missing(node, key) and not isinstance(node[key], DictConfig):
            raise ConfigError(f"{place}.{key} is a part with options of its own, not {node[key]!r}; choose one.")


def locate(name: object) -> Callable[..., Any]:
    """The class or function of a dotted name. ConfigError where it cannot be imported."""
    if not isinstance(name, str):
        raise ConfigError(f"_target_={name} is no name of a class or function; choose an option of its group.")
    try:
        target = pydoc.locate(name)
    except pydoc.ErrorDuringImport as error:
        raise ConfigError(f"_target_={name} cannot be imported: {error}.") from error
    if not callable(target):
        raise ConfigError(f"_target_={name} does not exist; is its package installed, or in the current folder?")
    return target


def options_of_target(target: Callable[..., object]) -> list[str] | None:
    """The names of the arguments that a class or function takes; None where it takes any.

    A class that passes `**settings` on takes those of the class above it too.
    """
    names: list[str] = []
    bases = target.__mro__ if isinstance(target, type) else ()
    for function in [vars(base)["__init__"] for base in bases if "__init__" in vars(base)] or [target]:
        try:
            parameters = list(inspect.signature(function).parameters.values())
        except ValueError:  # a builtin
            return None
        names += [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]
        if not any(p.kind == p.VAR_KEYWORD for p in parameters):
            return names
    return None


def parts_of(target: Callable[..., object]) -> list[str]:
    """The arguments of a class or function that are nodes of their own: what it calls, and objects of our classes."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError:
        return []
    own = re.compile(r"[\w.]*Callable\[|<class 'heatgen\.")
    return [p.name for p in parameters if own.match(str(p.annotation))]


def build_data(node: DictConfig) -> "DataModule":
    """The data of a config's node `data`, whose paths become absolute there.

    What it recommends to other groups is not its own concern.
    """
    for key in FILES[:2]:
        if node.get(key) is not None or (key == "data_dir" and key in node):
            node[key] = file_path(f"data.{key}", node[key])
    settings = {key: value for key, value in plain(node).items() if key != "recommended"}
    data: DataModule = instantiate(OmegaConf.create(settings))
    return data


def build_process(node: DictConfig) -> "ForwardProcess":
    """The forward process of a config's node `forward`, checked; what it warns of is logged."""
    process: ForwardProcess = instantiate(node)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        process.validate()
    if ranks.rank() == 0:
        for warning in caught:
            log.warning("Note: %s", warning.message)
    return process


def build_sampler(node: DictConfig) -> "Sampler":
    """The sampler of a config's node `sampler` with its options, to be called with (model, u_K, times, ...)."""
    node = OmegaConf.create({"sampler": {key: node[key] for key in node if key not in GRID}}).sampler  # with its place
    check_options(node)
    sampler: Sampler = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    return sampler


def build_optimizer(node: DictConfig) -> "Callable[..., torch.optim.Optimizer]":
    """The optimizer of a config's node `optimizer` with its options, to be called with the parameters.

    ConfigError for what is none.
    """
    import torch

    target = locate(node.get("_target_"))
    if isinstance(target, type) and not issubclass(target, torch.optim.Optimizer):
        raise ConfigError(
            f"optimizer._target_={node._target_} is no optimizer of PyTorch; use optimizer=adam, adamw or sgd."
        )
    check_options(node)
    factory: Callable[..., torch.optim.Optimizer] = hydra.utils.instantiate(node, _partial_=True, _convert_="all")
    return factory


def build(cfg: DictConfig, prepare: bool = False) -> tuple["Method", "DataModule"]:
    """The model and the data of a training config, wired together and checked; what the model chose goes into `cfg`.

    prepare: whether the forward process measures what it needs on the data, which otherwise a checkpoint brings.
    """
    data, process = build_data(cfg.data), build_process(cfg.forward)
    for group in ("forward", "net"):
        if cfg[group].get("shape") is not None and check.shape(f"{group}.shape", cfg[group].shape) != data.spec.shape:
            raise ConfigError(f"{group}.shape is that of the data, {list(data.spec.shape)}; set data.shape alone.")
    if "inputs" in cfg.net and cfg.net.inputs != (inputs := cfg.model.get("inputs", 1)):
        way = "set model.inputs alone" if "inputs" in cfg.model else "remove it"
        raise ConfigError(f"net.inputs={cfg.net.inputs} is not the number of fields that the model gives, {inputs}; {way}.")
    if prepare:
        process.prepare(data)
    sampler = None if cfg.get("sampler") is None else build_sampler(cfg.sampler)
    optimizer = None if cfg.get("optimizer") is None else build_optimizer(cfg.optimizer)
    model: Method = instantiate(cfg.model, process=process, net=instantiate(cfg.net), sampler=sampler, optimizer=optimizer)
    if model.uses_sampler:
        from heatgen.model.grid import Grid
        from heatgen.sampler.interface import ExactModel, check_pair, function_of, protocol_of

        if sampler is None:
            raise ConfigError(f"{cfg.model._target_} draws with a sampler; choose one with sampler=NAME.")
        check_pair(sampler, model)
        model.grid = Grid(**{key: value for key, value in plain(cfg.sampler).items() if key in GRID and value is not None})
        if protocol_of(sampler) is ExactModel and model.grid != Grid():
            own = function_of(sampler).__name__
            raise ConfigError(f"sampler={own} draws u_0 at once, so sampler.steps, spacing and rho do nothing; remove them.")
        model.sampling_times()  # what it cannot visit is refused now
        if model.trainable:
            model.rehearse()
    freeze(model)
    if model.trainable and not any(weights.requires_grad for weights in model.parameters()):
        raise ConfigError(f"{cfg.model._target_} has no weights to train with {cfg.net._target_}; choose another net=.")
    for key, value in model.chosen.items():
        OmegaConf.update(cfg, f"model.{key}", value)
        if ranks.rank() == 0:
            log.info("model.%s=auto chose %s", key, value)
    return model, data


def build_all(cfg: DictConfig, group: str, **objects: object) -> list[Any]:
    """What the nodes of a group that has several describe: callbacks, or loggers. ConfigError for what is no node."""
    parts = {str(name): node for name, node in (cfg.get(group) or {}).items() if node is not None}
    if wrong := next((name for name, node in parts.items() if not isinstance(node, DictConfig)), None):
        key = f"{group}.{wrong}"
        raise ConfigError(f"{key}={parts[wrong]} is no part with a _target_; take it away with ~{key}, or set {key}.OPTION.")
    return [instantiate(node, **objects) for node in parts.values()]


def refuse_unused(cfg: DictConfig) -> None:
    """ConfigError for a choice of a training config that its model does not use: of a regime, sampler or optimizer."""
    model = locate(cfg.model._target_)
    takes = options_of_target(model)
    uses = {
        "regime": takes is None or "regime" in takes,
        "sampler": getattr(model, "uses_sampler", True),
        "optimizer": getattr(model, "trainable", True),
    }
    for group, used in uses.items():
        if not used and cfg.get(group) is not None:
            raise ConfigError(f"{group}= is not used by {cfg.model._target_}; remove it.")


def refuse_blind_net(cfg: DictConfig, model: "Method") -> None:
    """ConfigError where the map gives random numbers to a network that takes no notice, or none to one that needs them."""
    from heatgen.noise import SampleNoise

    if not model.trainable:
        return
    process, last = model.process, model.process.times[-1:]
    draws = process.draw(SampleNoise([0], "check"))
    given = draws is not None and process.bind(draws).cond(last, last) is not None
    needs = any(getattr(part, "conditional", False) for part in model.net.modules())
    if given and not needs and not asks_for_cond(plain(cfg.net)):
        raise ConfigError(
            f"forward={process.name} gives its random numbers (cond) to the network, and {cfg.net._target_} does not use "
            "them; use a net with net.conditional=true, or forward.conditional=false."
        )
    if needs and not given:
        hidden = "; use net.conditional=false" if draws is None else " with forward.conditional=false; set that one true"
        raise ConfigError(
            f"net.conditional=true needs random numbers (cond) that forward={process.name} does not give{hidden}."
        )


def asks_for_cond(options: object) -> bool:
    """Whether the options of a network, or of a part of it, say `conditional: true`."""
    if not isinstance(options, dict):
        return False
    return options.get("conditional") is True or any(map(asks_for_cond, options.values()))
