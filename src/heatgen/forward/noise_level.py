"""The noise level of a diagonal map, one number a time, and the time at which it has a given one."""

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from heatgen.check import ConfigError

if TYPE_CHECKING:
    from heatgen.forward.process import ForwardProcess

HALVINGS = 60  # of the interval of times, which leaves less than float64 resolves


def noise_to_signal(process: "ForwardProcess", t: Tensor) -> Tensor:
    """rms(L(t)) / max |A(t)| over the coefficients, the sigma of Karras et al. 2022; inf where A = 0; (B,) float64."""
    gain, std = (part(t.double()).double().flatten(1) for part in (process.gain, process.std))
    return std.square().mean(1).sqrt() / gain.abs().amax(1)


def time_at(process: "ForwardProcess", ratio: Tensor, key: str, instead: str) -> Tensor:
    """The times of these noise-to-signal ratios, held to the range of the map, by bisection; (N,) float64.

    Args:
        process: the map.
        ratio: (N,).
        key: what asked for it, such as sampler.spacing=rho, for the message.
        instead: what the message advises to use.

    Raises:
        ConfigError: the ratio does not rise from level to level, or is not known between levels.
    """
    return time_where(process, functools.partial(noise_to_signal, process), ratio, "noise", key, instead)


def time_where(
    process: "ForwardProcess", measure: Callable[[Tensor], Tensor], wanted: Tensor, what: str, key: str, instead: str
) -> Tensor:
    """The times at which a measure that rises from level to level has these values, as of `time_at`.

    Args:
        measure: from times, (N,), to values, (N,) float64.
        wanted: its values, (N,).
        what: its name, for the message.
    """
    if not process.is_diagonal or (measure(process.times).diff() <= 0).any():
        lacks = f"{what} that grows with every level, which forward={process.name} does not have"
        raise ConfigError(f"{key} needs {lacks}; use {instead}.")
    low, high = process.times[:1].expand(len(wanted)), process.times[-1:].expand(len(wanted))
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = measure(middle) < wanted.to(middle)
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return high


def raised(process: "ForwardProcess", t: Tensor, factor: float, least: float, most: float) -> list[Tensor | None]:
    """For each of times t, (N,), the time at which noise over signal is `factor` times as large, at most t_K.

    None where that ratio at t is outside least .. most. ConfigError where the map has no noisy steps, or no step is inside.
    """
    if process.is_random or not process.is_markov:
        raise ConfigError(f"sampler.churn needs a map with noisy steps, which forward={process.name} lacks; use 0.")
    sigma = noise_to_signal(process, t)
    up = time_at(process, sigma * factor, "sampler.churn", "churn=0")
    acts = ((sigma >= least) & (sigma <= most) & (up > t)).tolist()
    if not any(acts):
        raise ConfigError(
            "sampler.churn acts in no step; choose churn_min and churn_max around the sigma of some, or churn=0."
        )
    return [time if act else None for time, act in zip(up, acts, strict=True)]
