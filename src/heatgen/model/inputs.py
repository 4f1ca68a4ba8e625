"""What networks are shown beside the state: the physics increment, in units of the noise."""

from typing import Any

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.model.module import rms


def check_inputs(inputs: int, process: Any) -> int:
    """ConfigError unless inputs is 1, or 2 and the map has an increment."""
    if check.integer("model.inputs", inputs, minimum=1) > 2:
        raise ConfigError(f"model.inputs must be 1 (the state) or 2 (and the physics increment), not {inputs}.")
    if inputs == 2 and (process.is_random or not has_increments(process)):
        raise ConfigError(
            f"model.inputs=2 needs a map with noisy steps, which forward={process.name} lacks; use model.inputs=1."
        )
    return int(inputs)


def has_increments(process: Any) -> bool:
    """Whether there is a noisy step, and an increment, from each level to the next."""
    try:
        process.step_std(process.times[:-1], process.times[1:])
        return unit(process) > 0
    except ConfigError:
        return False


def unit(process: Any) -> float:
    """q, the noise of the map's last step, root mean square over the coefficients."""
    return float(rms(process.step_std(process.times[-2:-1], process.times[-1:])))


def show(process: Any, u: Tensor, t: Tensor, inputs: int) -> Tensor:
    """u, (B, C, H, W), with inputs = 2 on top of P / q, (B, 2 C, H, W): P the map's increment over a level before t.

    It brings out what diffuses fast, which is small in u. Source: the two-channel update of Holzschuh et al. 2023.
    """
    if inputs == 1:
        return u
    length = process.times.diff().max()
    start = (t - length).clamp(min=0)
    return torch.cat([u, (process.increment(u, start, start + length) / unit(process)).to(u)], dim=1)
