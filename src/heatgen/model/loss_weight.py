"""What an error of u_0 counts in the loss of a denoiser, by time and coefficient."""

import torch
from torch import Tensor

from heatgen.check import ConfigError
from heatgen.forward.process import ForwardProcess, derivative
from heatgen.model.prediction_type import AT_ONCE

WEIGHTS = ("prediction", "edm", "velocity", "soft", "min_snr", "whitened")
HELD = 0.05  # the share of K below which weight=velocity is held
MOST_SNR = 5.0  # of weight=min_snr, of data in [-1, 1]


def root(weight: str, process: ForwardProcess, t: Tensor, spectrum: Tensor) -> Tensor:
    """The square root of the weight of |v - u_0|^2 by coefficient at times t > 0, broadcastable to (B, C, H, W), float64.

        edm       (L^2 + A^2 S) / (L^2 S), S: `spectrum`, the variance of each coefficient of the data, (C, H, W)
        velocity  (A' - L' A / L)^2, as of velocities that follow from v: 1 / t^2 for a flow; below level K / 20 as there
        soft      A^2, as of degraded images
        min_snr   min(max A^2 / (2 L)^2, 5), max over the coefficients: 2 L is the noise on data in [-1, 1]
        whitened  1 / S

    Source: Karras et al. 2022, table 1; Li and He 2025 (velocity); Daras et al. 2023; Hang et al. 2023; Falck et al. 2025.
    """
    t = t.double()
    if weight == "whitened":
        return spectrum.rsqrt()[None]
    if weight == "velocity":
        low, part = divmod(HELD * process.num_levels, 1)
        t = torch.maximum(t, torch.lerp(process.times[int(low)], process.times[int(low) + 1], part))
        (gain, gain_rate), (std, std_rate) = derivative(process.gain, t), derivative(process.std, t)
        return (gain_rate - std_rate * gain / std).abs()
    gain, std = process.gain(t).double(), process.std(t).double()
    if weight == "soft":
        return gain.abs()
    if weight == "min_snr":
        return (gain.abs().amax((1, 2, 3), keepdim=True) / (2 * std)).clamp(max=MOST_SNR**0.5)
    return (std**2 + gain**2 * spectrum).sqrt() / (std * spectrum.sqrt())


def check_weight(weight: str, process: ForwardProcess, score_only: bool) -> None:
    """ConfigError where a weight is not defined for a map, never counts one of its coefficients, or u_0 is not estimated."""
    asked, name = f"model.weight={weight}", process.name
    if weight == "prediction":
        return
    if not process.is_diagonal:
        raise ConfigError(f"{asked} needs a diagonal map; forward={name} is not: use model.weight=prediction.")
    if score_only:
        raise ConfigError(
            f"{asked} is of errors of u_0, which prediction_type=score does not know of forward={name}; use "
            "prediction_type=x0."
        )
    one = torch.ones(process.shape, dtype=torch.float64, device=process.times.device)
    largest = torch.zeros_like(one)
    for t in process.times[1:].split(AT_ONCE):
        largest = torch.maximum(largest, root(weight, process, t, one).amax(0))
    if not largest.isfinite().all():
        raise ConfigError(
            f"{asked} needs noise at each level of forward={name}; raise forward.sigma, or use model.weight=prediction."
        )
    if (largest == 0).any():
        raise ConfigError(f"{asked} leaves out what forward={name} never changes; use another weight.")
