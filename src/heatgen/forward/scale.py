"""forward/scale: what becomes of all coefficients of u_0 alike, scale(t); scale(0) = 1."""

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from heatgen import check
from heatgen.forward.part import Part, option

if TYPE_CHECKING:
    from heatgen.forward.composed import Composed

FIRST, SPEED = 0.1, 20.0 - 0.1  # of the linear schedule: beta a unit of time, for 1000 steps of 1e-4 to 0.02
OFFSET = 0.008  # of the cosine schedule
LAST, LEFT = 0.999, 0.001  # where its last step of 1000 begins, and what it leaves of abar, as beta <= 0.999


@dataclass(eq=False)
class VariancePreserving(Part):
    """sqrt(abar(t)) of denoising diffusion, in continuous time.

    linear: abar = exp(-int_0^t beta) with beta from 0.1 to 20, the limit of 1000 steps of 1e-4 to 0.02. cosine: abar =
    f(t) / f(0), f = cos^2(pi/2 (t + s) / (1 + s)), s = 0.008, and beyond t = 0.999 a straight line to the sqrt(abar) that
    the paper's last step leaves, whose beta is cut at 0.999.

    Args:
        schedule: linear | cosine.
    Source: Ho et al. 2020, section 4, and Song et al. 2021, eq. 32; Nichol and Dhariwal 2021, eq. 17.
    """

    schedule: str = option("linear", check.choice, options=("linear", "cosine"))

    def forward(self, t: Tensor, process: "Composed") -> Tensor:
        if self.schedule == "linear":
            return (-(FIRST * t + SPEED * t**2 / 2) / 2).exp()
        speed = math.pi / 2 / (1 + OFFSET)
        slope = math.tan(speed * OFFSET)  # cos(x + c) / cos(c) = cos x - tan c sin x is exactly 1 at x = 0
        line = (math.cos(speed * LAST) - slope * math.sin(speed * LAST)) * (1 - (1 - LEFT**0.5) * (t - LAST) / (1 - LAST))
        return torch.where(t > LAST, line, (speed * t).cos() - slope * (speed * t).sin())


@dataclass(eq=False)
class LogSnr(Part):
    """cos c(t), c linear in t such that ln(cos^2 c / sin^2 c) falls from log_snr_max to -log_snr_max; 1 at t = 0.

    Args:
        log_snr_max: above 0.
    Source: Hoogeboom and Salimans 2023, appendix A.
    """

    log_snr_max: float = option(10.0, check.number, above=0)

    def forward(self, t: Tensor, process: "Composed") -> Tensor:
        first = math.atan(math.exp(-self.log_snr_max / 2))
        angle = first + (math.pi / 2 - 2 * first) * t
        return torch.where(t > 0, angle, torch.zeros_like(angle)).cos()


@dataclass(eq=False)
class Flow(Part):
    """(1 - t)^(1 + a lambda_i): 1 - t of flow matching, and with a = 1/2 its heat dissipation. Nothing is left at t = 1.

    Args:
        dissipation: a, in pixel^2; 0 or more.
    Source: Lipman et al. 2023, eq. 20; Heat Dissipation Flow Matching, arXiv 2605.19371.
    """

    dissipation: float = option(0.0, check.number, minimum=0, maximum=1e4)

    def attach(self, process: "Composed") -> None:
        self.uses_waves = self.dissipation > 0
        super().attach(process)

    def forward(self, t: Tensor, process: "Composed") -> Tensor:
        if not self.uses_waves:
            return 1 - t
        return (1 - t) ** (1 + self.dissipation * process.eigenvalues.to(t))  # one power: its slope is right at t = 1 too
