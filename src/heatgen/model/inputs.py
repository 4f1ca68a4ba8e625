"""What networks see beside the state: the physics increment, in units of the noise."""

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.process import ForwardProcess
from heatgen.model.interface import rms


def check_inputs(inputs: int, process: ForwardProcess) -> int:
    """model.inputs, 1 or 2. ConfigError unless it is, and for 2 if the map has no noisy steps."""
    if check.integer("model.inputs", inputs, minimum=1) > 2:
        raise ConfigError(f"model.inputs must be 1 (the state) or 2 (and the physics increment), not {inputs}.")
    if inputs == 2 and (process.is_random or not process.is_markov):
        raise ConfigError(
            f"model.inputs=2 needs a map with noisy steps, which forward={process.name} lacks; use model.inputs=1."
        )
    return int(inputs)


def unit(process: ForwardProcess) -> float:
    """q, the noise of the map's last step, root mean square over the coefficients."""
    return float(rms(process.step_std(process.times[-2:-1], process.times[-1:])))


def show(process: ForwardProcess, u: Tensor, t: Tensor, inputs: int, unit: float) -> Tensor:
    """The input of the network, (B, inputs C, H, W): u, and with inputs = 2 also P / q, which brings out what diffuses fast.

    Args:
        process: the map; P is its increment over a level before t.
        u: states at t, (B, C, H, W).
        t: times, (B,).
        inputs: 1 or 2.
        unit: q, the map's `unit`.

    Source: the two-channel update of Holzschuh et al. 2023.
    """
    if inputs == 1:
        return u
    length = process.times.diff().max()
    start = (t - length).clamp(min=0)
    return torch.cat([u, (process.increment(u, start, start + length) / unit).to(u)], dim=1)
