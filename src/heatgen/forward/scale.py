"""forward/scale: what becomes of all coefficients of u_0 alike, scale(t); scale(0) = 1."""

import math

import torch
from torch import Tensor

from heatgen import check
from heatgen.forward.composed import Composed

FIRST, SPEED = 0.1, 20.0 - 0.1  # of the linear schedule: beta a unit of time, for 1000 steps of 1e-4 to 0.02
OFFSET = 0.008  # of the cosine schedule
LAST, LEFT = 0.999, 0.001  # where its last step of 1000 begins, and what it leaves of abar, as beta <= 0.999


def variance_preserving(t: Tensor, process: Composed, schedule: str = "linear") -> Tensor:
    """sqrt(abar(t)) of denoising diffusion in continuous time, by `schedule`, linear | cosine.

    linear: abar = exp(-int_0^t beta), beta from 0.1 to 20, the limit of 1000 steps of 1e-4 to 0.02 (Ho et al. 2020; Song et
    al. 2021, eq. 32). cosine: abar = f(t) / f(0), f = cos^2(pi/2 (t + s) / (1 + s)), s = 0.008 (Nichol and Dhariwal 2021,
    eq. 17), and beyond t = 0.999 a line to the sqrt(abar) that the paper's last step leaves, whose beta is cut at 0.999.
    """
    if check.choice("forward.scale.schedule", schedule, ("linear", "cosine")) == "linear":
        return (-(FIRST * t + SPEED * t**2 / 2) / 2).exp()
    speed = math.pi / 2 / (1 + OFFSET)
    slope = math.tan(speed * OFFSET)  # cos(x + c) / cos(c) = cos x - tan c sin x is exactly 1 at x = 0
    line = (math.cos(speed * LAST) - slope * math.sin(speed * LAST)) * (1 - (1 - LEFT**0.5) * (t - LAST) / (1 - LAST))
    return torch.where(t > LAST, line, (speed * t).cos() - slope * (speed * t).sin())


def log_snr(t: Tensor, process: Composed, log_snr_max: float = 10.0) -> Tensor:
    """cos c(t), where ln(cos^2 c / sin^2 c) falls from log_snr_max > 0 to minus that and c is linear in t; 1 at t = 0.

    Source: Hoogeboom and Salimans 2023, appendix A.
    """
    first = math.atan(math.exp(-check.number("forward.scale.log_snr_max", log_snr_max, above=0) / 2))
    angle = first + (math.pi / 2 - 2 * first) * t
    return torch.where(t > 0, angle, torch.zeros_like(angle)).cos()


def flow(t: Tensor, process: Composed, dissipation: float = 0.0) -> Tensor:
    """(1 - t)^(1 + a lambda_i), a = dissipation >= 0 in pixel^2, 0 at t = 1.

    Source: Lipman et al. 2023, eq. 20 (a = 0); Heat Dissipation Flow Matching, arXiv 2605.19371 (a = 1/2).
    """
    if check.number("forward.scale.dissipation", dissipation, minimum=0, maximum=1e4) == 0:
        return 1 - t
    return (1 - t) ** (1 + dissipation * process.waves("forward.scale").to(t))  # one power: its slope is right at t = 1 too
