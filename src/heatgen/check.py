"""Checks of what a user wrote: one clear sentence that names the config key and the fix."""

import difflib
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the commands that read results need no torch
    from torch import Tensor

Doubt = tuple["Tensor", Callable[[], str]]  # whether there is a mistake, on a GPU, and its sentence
DOUBTS: ContextVar["list[Doubt] | None"] = ContextVar("doubts", default=None)  # where `refuse` keeps them; None: nowhere
NAME = re.compile(r"\w[\w .=,+-]*")


class ConfigError(ValueError):
    """A user's mistake. Its message is one sentence; the entry points print it and exit with code 1."""


def did_you_mean(word: str, options: Iterable[str]) -> str:
    """The words "; did you mean X?" for the option nearest to `word` in any case, or "" if none is near."""
    known = {option.lower(): option for option in options}
    near = difflib.get_close_matches(word.lower(), known, n=1, cutoff=0.5)
    return f"; did you mean {known[near[0]]}?" if near else ""


def option_name(thing: object) -> str:
    """What a config calls an object: the stem of the file of its class, such as elbo."""
    return type(thing).__module__.rsplit(".", 1)[-1]


def integer(key: str, value: object, minimum: int | None = None, maximum: int | None = None) -> int:
    """`value` as an int; ConfigError unless it is a whole number of at least `minimum` and at most `maximum`."""
    bound = "" if minimum is None else f" of at least {minimum}"
    whole = isinstance(value, (int, float)) and not isinstance(value, bool) and float(value).is_integer()
    if isinstance(value, (int, float)) and whole and (minimum is None or value >= minimum):
        if maximum is not None and value > maximum:
            raise ConfigError(f"{key} must be at most {maximum}, not {int(value)}.")
        return int(value)
    raise ConfigError(f"{key} must be a whole number{bound}, not {value!r}.")


def integers(key: str, value: object, minimum: int | None = None) -> list[int]:
    """`value` as a list of ints; ConfigError unless it is a list of whole numbers of at least `minimum`."""
    if isinstance(value, str) or not isinstance(value, Sequence):
        raise ConfigError(f"{key} must be a list of whole numbers such as [1,2], not {value!r}.")
    return [integer(key, one, minimum) for one in value]


def layers(key: str, value: object, minimum: int = 1) -> int:
    """`value` as a number of layers, which are made one by one: `minimum` to 1000; ConfigError otherwise."""
    return integer(key, value, minimum, maximum=1000)


def seed(key: str, value: object) -> int:
    """`value` as a seed, which every generator takes: a whole number from 0 to 2^32 - 1; ConfigError otherwise."""
    if (found := integer(key, value, minimum=0)) >= 2**32:
        raise ConfigError(f"{key} must be less than 2^32 = {2**32}, not {found}.")
    return found


def number(
    key: str, value: object, minimum: float = -math.inf, maximum: float = math.inf, above: float = -math.inf
) -> float:
    """`value` as a float; ConfigError unless it is finite, >= minimum, <= maximum and > above."""
    finite = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    if isinstance(value, (int, float)) and finite and minimum <= value <= maximum and value > above:
        return float(value)
    bounds = [
        f"greater than {above:g}" if above > -math.inf else "",
        f"of at least {minimum:g}" if minimum > -math.inf else "",
        f"of at most {maximum:g}" if maximum < math.inf else "",
    ]
    wanted = " and ".join(b for b in bounds if b)
    raise ConfigError(f"{key} must be a number{' ' + wanted if wanted else ''}, not {value!r}.")


def bracket(key: str, value: object) -> tuple[float, float]:
    """`value` as (low, high), 0 < low < high; ConfigError otherwise."""
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise ConfigError(f"{key} must be a pair [low, high], not {value!r}.")
    low, high = (number(key, end, above=0) for end in value)
    if high <= low:
        raise ConfigError(f"{key} must be a pair [low, high] that ascends, not {list(value)}.")
    return low, high


def boolean(key: str, value: object) -> bool:
    """`value` if it is true or false; ConfigError otherwise."""
    if not isinstance(value, bool):
        raise ConfigError(f"{key} must be true or false, not {value!r}.")
    return value


def choice(key: str, value: object, options: Sequence[str]) -> str:
    """`value` if it is one of `options`; ConfigError otherwise."""
    if not isinstance(value, str) or value not in options:
        hint = did_you_mean(str(value), options) or "."
        raise ConfigError(f"{key} must be one of {', '.join(options)}, not {value!r}{hint}")
    return value


def memory(key: str, value: int, each: int) -> None:
    """ConfigError where `value` things of `each` bytes are more than this machine's memory: said before they are made."""
    whole = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if value * each > whole:
        sizes = f"{value * each / 2**30:.3g} GiB and this machine has {whole / 2**30:.3g}"
        raise ConfigError(f"{key}={value} needs {sizes}; use {key}={whole // each // 2} or fewer.")


def name(key: str, value: object, parts: bool = False) -> str:
    """`value` as the name of a file or folder that stays where it is put; ConfigError otherwise.

    Args:
        key: whose value it is.
        value: letters, digits, _ and, behind the first, spaces and . - = , +.
        parts: whether / may stand between such names.
    """
    words = value.split("/") if parts and isinstance(value, str) else [value]
    if isinstance(value, str) and len(value) <= 150 and all(NAME.fullmatch(str(word)) for word in words):
        return value
    many = f"one of at most 150 characters, not {len(value)}" if isinstance(value, str) and len(value) > 150 else ""
    raise ConfigError(f"{key} must be a name such as my_maps, {many or f'of letters, digits, _ . and -, not {value!r}'}.")


def shape(key: str, value: object) -> tuple[int, ...]:
    """`value` as a tuple of positive whole numbers, (channels, height, width) for images."""
    if isinstance(value, str) or not isinstance(value, Sequence) or not value:
        raise ConfigError(f"{key} must be a list such as [1, 28, 28], not {value!r}.")
    return tuple(integer(key, size, minimum=1) for size in value)


def finite(what: str, values: "Tensor", fix: str, numbers: Sequence[int] | None = None) -> "Tensor":
    """`values`, (n, ...), if all its numbers are finite; the one gate before anything is kept.

    Args:
        what: what the rows are, a plural such as "samples" or "features of test images".
        values: one row for each.
        fix: what to do, without a full stop.
        numbers: of the rows; by default 0, 1, ...
    Raises:
        ConfigError: names the number of bad rows and the first of them.
    """
    bad = ~values.isfinite()
    bad = bad.flatten(1).any(1) if bad.dim() > 1 else bad.reshape(-1)
    if bad.any():
        place = int(bad.nonzero()[0, 0])
        first = place if numbers is None else numbers[place]
        raise ConfigError(f"{int(bad.sum())} of {len(bad)} {what} hold NaN or inf (the first is number {first}); {fix}.")
    return values


def refuse(bad: "Tensor", sentence: Callable[[], str]) -> None:
    """ConfigError with this sentence where one of these booleans is true.

    To read them on a GPU is to wait for all its work, so within `deferred` it is done once, at the end.
    """
    doubts = DOUBTS.get()
    if doubts is not None and bad.device.type != "cpu":
        doubts.append((bad.any(), sentence))
    elif bad.any():
        raise ConfigError(sentence())


@contextmanager
def deferred(doubts: "list[Doubt] | None" = None) -> "Iterator[None]":
    """Within it `refuse` waits for no GPU: what it has to judge there goes into a list.

    Args:
        doubts: the list, for the caller to `settle`; None: one of its own, which is settled at the end.
    """
    kept: list[Doubt] = [] if doubts is None else doubts
    token = DOUBTS.set(kept)
    try:
        yield
    finally:
        DOUBTS.reset(token)
    if doubts is None and (sentence := settle(kept)):
        raise ConfigError(sentence)


def settle(doubts: "list[Doubt]") -> str | None:
    """The first sentence that is true, None: none is; the list is empty afterwards."""
    import torch

    kept, doubts[:] = list(doubts), []
    found = torch.stack([bad for bad, _ in kept]).tolist() if kept else []
    return next((sentence() for (_, sentence), bad in zip(kept, found, strict=True) if bad), None)


def first_difference(pairs: "Iterable[tuple[str, object, Tensor]]") -> str | None:
    """How the first tensor that is not of the shape and kind of the model's own differs from it; None: no such.

    Args:
        pairs: of each its name, what a checkpoint has there, and the model's own.
    """
    import torch

    for name, found, own in pairs:
        if not isinstance(found, torch.Tensor):
            return f"{name} is missing" if found is None else f"{name} is a {type(found).__name__}"
        if found.shape != own.shape or found.is_complex() or found.is_floating_point() != own.is_floating_point():
            there, here = (f"{list(x.shape)} {str(x.dtype).removeprefix('torch.')}" for x in (found, own))
            return f"{name} is {there} there and {here} in the model"
    return None


def tensors_in(content: object) -> "Iterator[tuple[str, Tensor]]":
    """The tensors in nested containers, with their names such as state_dict.net.weight; those of a shared container once."""
    import torch

    stack, seen = [("", content)], set[int]()
    while stack:
        name, value = stack.pop()
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            items = list(value.items() if isinstance(value, Mapping) else enumerate(value))
            stack += [(f"{name}.{key}" if name else str(key), one) for key, one in reversed(items)]


def first_nonfinite_weight(checkpoint: Mapping[str, object]) -> str | None:
    """The name of the first tensor with NaN or inf of what a model is; a callback may have its reasons to keep one."""
    callbacks = checkpoint.get("callbacks")
    own = {"EMA": callbacks["EMA"]} if isinstance(callbacks, Mapping) and "EMA" in callbacks else {}
    return first_nonfinite({**checkpoint, "callbacks": own})


def first_nonfinite(content: object) -> str | None:
    """The name, such as state_dict.net.weight, of the first tensor with NaN or inf in nested containers; None: no such."""
    return next((name for name, x in tensors_in(content) if x.is_floating_point() and not bool(x.isfinite().all())), None)
