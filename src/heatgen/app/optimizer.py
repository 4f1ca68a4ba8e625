"""The optimizer of a training: what is wrong with one of its options is said by name, before anything is written."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import torch
from omegaconf import DictConfig
from torch import nn

from heatgen import check
from heatgen.check import ConfigError
from heatgen.model.module import Method

OURS = "use optimizer=adam, adamw or sgd"
WORDS = {float: "a number", int: "a whole number", bool: "true or false", str: "a text", NoneType: "null"}


def refuse_optimizer(node: DictConfig | None, model: Method) -> None:
    """ConfigError for an optimizer that cannot make a step; one of PyTorch's tries, on a few weights of its own.

    Args:
        node: of the config.
        model: that was built with it.
    """
    if not model.trainable:
        return
    factory = model.make_optimizer
    if node is None or not isinstance(factory, functools.partial):
        raise ConfigError(f"A model with weights to train needs an optimizer; {OURS}.")
    target = factory.func
    check_values(target, factory.keywords)
    if not str(node._target_).startswith("torch.optim."):
        return
    ranks = {weight.dim(): weight for weight in model.parameters() if weight.requires_grad}
    given = {key: value for key, value in factory.keywords.items() if key != "capturable"}  # which a GPU alone can
    if (reason := refusal(target, given, ranks.values())) is None:
        return
    at_fault = [
        key for key in given if refusal(target, {k: v for k, v in given.items() if k != key}, ranks.values()) is None
    ]
    if not at_fault:
        raise ConfigError(f"optimizer._target_={node._target_} cannot train these weights ({reason}); {OURS}.")
    told = " with ".join(f"optimizer.{key}={given[key]}" for key in at_fault)
    usual = inspect.signature(target).parameters[at_fault[0]].default
    raise ConfigError(f"{told} is refused by {node._target_} ({reason}); use optimizer.{at_fault[0]}={shown(usual)}.")


def check_values(target: Callable[..., Any], given: Mapping[str, object]) -> None:
    """ConfigError for an option that is not of the kind that the optimizer says it takes."""
    if "lr" in given:
        check.number("optimizer.lr", given["lr"], minimum=0)
    try:
        hints = get_type_hints(vars(target).get("__init__", target) if isinstance(target, type) else target)
    except (NameError, TypeError):  # of somebody's own, for a type checker alone
        hints = {}
    for key, value in given.items():
        if key == "params":
            raise ConfigError("optimizer.params are the model's; remove it, or keep some as they are with model.freeze.")
        if key in hints and not fits(value, hints[key]):
            raise ConfigError(f"optimizer.{key} must be {words(hints[key])}, not {value!r}.")


def fits(value: object, hint: object) -> bool:
    """Whether a value of a config is of this kind; numbers are finite, and what a config cannot hold is not looked at."""
    if get_origin(hint) in (Union, UnionType):
        return any(fits(value, one) for one in get_args(hint) if one is not torch.Tensor)
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if not isinstance(value, Sequence) or isinstance(value, str) or len(value) != len(kinds):
            return False
        return all(fits(one, kind) for one, kind in zip(value, kinds, strict=True))
    if hint in (int, float):
        finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
        return finite and (hint is float or float(value).is_integer())  # type: ignore[arg-type]
    return isinstance(value, hint) if isinstance(hint, type) and hint in WORDS else True


def words(hint: object) -> str:
    """A kind of value as a user would write it."""
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(words(one) for one in get_args(hint) if one is not torch.Tensor)
    if get_origin(hint) is tuple:
        return f"a list [{', '.join(words(one) for one in get_args(hint))}]"
    return WORDS[hint] if isinstance(hint, type) and hint in WORDS else "something else"


def shown(value: object) -> str:
    """A value of Python's as it is typed behind KEY=."""
    if isinstance(value, (tuple, list)):
        return f"[{','.join(map(shown, value))}]"
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


def refusal(target: Callable[..., Any], options: Mapping[str, object], weights: Any) -> str | None:
    """Why an optimizer with these options cannot make a step on weights of these shapes; None where it can."""
    probes = [nn.Parameter(torch.zeros(weight.shape)) for weight in weights]

    def closure() -> torch.Tensor:
        for probe in probes:
            probe.grad = torch.zeros_like(probe)
        return torch.zeros(())

    try:
        closure()
        target(probes, **options).step(closure)
    except Exception as error:  # optimizers refuse as they like
        return f"{str(error).strip() or type(error).__name__}".split("\n")[0].rstrip(".")
    return None
