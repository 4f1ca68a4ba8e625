"""What the network of a denoiser may give, which maps allow it, and u_0 from the velocity of the state."""

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.process import ForwardProcess, derivative

PREDICTION_TYPES = ("auto", "preconditioned", "x0", "eps", "score", "velocity")
LOST = 1e-6  # the least gain that A^-1 is taken of, and the least dF / du_0 of a velocity
AT_ONCE = 16  # levels that are looked at together


def choose(process: ForwardProcess, wanted: str, scale_input: bool) -> str:
    """The prediction type of a denoiser of this map. ConfigError where the map, or scale_input, forbids it."""
    name, asked = process.name, f"model.prediction_type={wanted}"
    if check.choice("model.prediction_type", wanted, PREDICTION_TYPES) == "auto":
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
    drawn = process.is_random and not process.random_noise_only
    return not process.is_diagonal or drawn or bool(process.gain(process.times).abs().min() < LOST)


def velocity_tells_u0(process: ForwardProcess) -> bool:
    """Whether u_0 follows from u_t and its velocity at every level, for data of unit variance."""
    if process.is_random and not process.random_noise_only:
        return False
    one = torch.ones(process.shape, dtype=torch.float64, device=process.times.device)
    return all(bool((Velocity(process, t, one).slope() < 1 / LOST).all()) for t in process.times[1:].split(AT_ONCE))


class Velocity:
    """F* = (A' u_0 + b' + L' eps) / n, the velocity of states in units of its size, and u_0 from F and u_t.

    n(t)^2 is the mean over the coefficients of A'^2 power + b'^2 + L'^2, with the mean square `power` of those of the data,
    (C, H, W): one number a time t > 0, so that no clock matters. It is a constant where A = 1 - t and L = t, whose loss is
    that of flow matching, and F* = eps where A = 1.

    Source: Lipman et al. 2023, eq. 14; Salimans and Ho 2022, appendix D, with operators for numbers.
    """

    def __init__(self, process: ForwardProcess, t: Tensor, power: Tensor):
        self.basis = process.basis
        self.gain, self.gain_rate = derivative(process.gain, t.double())
        self.std, self.std_rate = derivative(process.std, t.double())
        self.offset, self.offset_rate = derivative(process.offset, t.double())
        square = self.gain_rate.square() * power + self.std_rate.square() + self.offset_rate.square()
        self.size = square.mean((1, 2, 3), keepdim=True).sqrt()
        self.determinant = self.std_rate * self.gain - self.std * self.gain_rate

    def target(self, u0: Tensor, eps: Tensor) -> Tensor:
        """F*, (B, C, H, W) float64."""
        moved = self.gain_rate * self.basis(u0.double()) + self.std_rate * self.basis(eps.double())
        return self.basis.inverse((moved + self.offset_rate) / self.size)

    def solve(self, u: Tensor, output: Tensor) -> Tensor:
        """u_0 = (L' c - L (n F - b')) / (L' A - L A') by coefficient, c = u_t - b, (B, C, H, W) float64."""
        c, rate = self.basis(u.double()) - self.offset, self.size * self.basis(output.double()) - self.offset_rate
        return self.basis.inverse((self.std_rate * c - self.std * rate) / self.determinant)

    def slope(self) -> Tensor:
        """|du_0 / dF| by coefficient."""
        return (self.size * self.std / self.determinant).abs()
