"""What the network of a denoiser may give, which maps allow it, and u_0 from the velocity of the state."""

from typing import NamedTuple

import torch
from torch import Tensor

from heatgen.check import ConfigError
from heatgen.forward.process import ForwardProcess, derivative

PREDICTION_TYPES = ("auto", "preconditioned", "x0", "eps", "score", "velocity")
LOST = 1e-6  # the least gain that A^-1 is taken of, and the least dF / du_0 of a velocity
AT_ONCE = 16  # levels that are looked at together


def choose(process: ForwardProcess, wanted: str, scale_input: bool) -> str:
    """The prediction type of a denoiser of this map. ConfigError where the map, or scale_input, forbids it."""
    name, asked = process.name, f"model.prediction_type={wanted}"
    if wanted == "auto":
        wanted = "preconditioned" if process.is_diagonal else "x0"
    if process.withholds_cond and not process.random_noise_only and (wanted != "score" or scale_input):
        raise ConfigError("model=diffusion uses T, which forward.conditional=false hides; use model=ihd.")
    if wanted in ("preconditioned", "velocity") and not process.is_diagonal:
        raise ConfigError(f"{asked} needs a diagonal map; forward={name} is not: use x0.")
    if wanted == "preconditioned" and not scale_input:
        raise ConfigError(
            "model.scale_input=false needs model.prediction_type=x0, eps, score or velocity; choose one, or remove it."
        )
    if wanted == "eps" and loses_u0(process):
        raise ConfigError(f"{asked} divides by A(t), which forward={name} may lose; use preconditioned or x0.")
    if wanted == "velocity" and not velocity_tells_u0(process):
        raise ConfigError(
            f"{asked} cannot be solved for u_0 under forward={name}, which loses a coefficient or whose noise does not grow "
            "beside it; use preconditioned or x0."
        )
    if wanted == "score" and not (process.std(process.times[1:]) > 0).all():
        raise ConfigError(f"{asked} needs noise at each level of forward={name}; raise forward.sigma (or forward.g).")
    return wanted


def loses_u0(process: ForwardProcess) -> bool:
    """Whether some level of the map keeps next to nothing of some coefficient of u_0, so that A(t)^-1 is not known."""
    return is_unknown(process) or bool(process.gain(process.times).abs().min() < LOST)


def is_unknown(process: ForwardProcess) -> bool:
    """Whether A(t) is no diagonal that is known before a draw."""
    return not process.is_diagonal or (process.is_random and not process.random_noise_only)


def velocity_tells_u0(process: ForwardProcess) -> bool:
    """Whether u_0 follows from u_t and its velocity at every level, for data of unit variance."""
    one = torch.ones(process.shape, dtype=torch.float64, device=process.times.device)
    levels = process.times[1:].split(AT_ONCE)
    return not is_unknown(process) and all((velocity(process, t, one).slope() < 1 / LOST).all() for t in levels)


class Velocity(NamedTuple):
    """A, L and b over the coefficients, their derivatives in t, and the size n of the velocity A' u_0 + b' + L' eps."""

    gain: Tensor
    gain_rate: Tensor
    std: Tensor
    std_rate: Tensor
    offset: Tensor
    offset_rate: Tensor
    size: Tensor

    def target(self, u0: Tensor, eps: Tensor) -> Tensor:
        """F* = (A' u_0 + b' + L' eps) / n by coefficient, (B, C, H, W)."""
        return (self.gain_rate * u0 + self.offset_rate + self.std_rate * eps) / self.size

    def solve(self, u: Tensor, output: Tensor) -> Tensor:
        """u_0 = (L' c - L (n F - b')) / (L' A - L A') by coefficient, c = u_t - b: both equations solved, (B, C, H, W)."""
        forced = self.std_rate * (u - self.offset) - self.std * (self.size * output - self.offset_rate)
        return forced / (self.std_rate * self.gain - self.std * self.gain_rate)

    def slope(self) -> Tensor:
        """|du_0 / dF| by coefficient."""
        return (self.size * self.std / (self.std_rate * self.gain - self.std * self.gain_rate)).abs()


def velocity(process: ForwardProcess, t: Tensor, power: Tensor) -> Velocity:
    """The velocity of states at times t > 0, (B,), of data whose coefficients have the mean square `power`, (C, H, W).

    n(t)^2 is the mean over the coefficients of A'^2 power + b'^2 + L'^2, (B, 1, 1, 1), so that the clock does not matter: a
    constant where A = 1 - t and L = t, whose loss is that of flow matching, and F* = eps where A = 1.

    Source: Lipman et al. 2023, eq. 14; Salimans and Ho 2022, appendix D, with operators for numbers.
    """
    parts = [part for function in (process.gain, process.std, process.offset) for part in derivative(function, t.double())]
    square = parts[1].square() * power + parts[3].square() + parts[5].square()
    return Velocity(*parts, size=square.mean((1, 2, 3), keepdim=True).sqrt())
