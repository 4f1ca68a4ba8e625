"""forward=blurring: blur and variance-preserving noise together, as in blurring diffusion models."""

import math

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import Cosine, neumann_eigenvalues
from heatgen.forward.levels import uniform
from heatgen.forward.process import ForwardProcess


class Blurring(ForwardProcess):
    """u_t = a(t) d(t) u_0 + s(t) eps in the cosine basis, with a^2 + s^2 = 1.

    a = cos c, s = sin c with c(t) such that ln(a^2 / s^2) = -2 ln tan c falls from log_snr_max to -log_snr_max (the cosine
    schedule); d = (1 - d_min) exp(-lambda tau) + d_min, tau = (sigma_max sin^2(pi t / 2))^2 / 2. Clock: t = k / K.
    Exactly u_0 at t = 0, where the published formula has a little noise already.

    Args:
        shape: (C, H, W).
        num_levels: K, at least 1.
        sigma_max: the widest blur, in pixels.
        d_min: what blur leaves of every mode, in [0, 1].
        log_snr_max: ln(a^2 / s^2) at the start, and minus that at the end.
    Raises:
        ConfigError: for values out of range.
    Source: Hoogeboom and Salimans 2023, section 4 and appendix A.
    """

    eigenvalues: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int = 100,
        sigma_max: float = 20.0,
        d_min: float = 0.001,
        log_snr_max: float = 10.0,
    ):
        height, width = check.shape("data.shape", shape)[-2:]
        times = uniform(check.integer("forward.num_levels", num_levels, minimum=1))
        super().__init__(shape, times, Cosine(height, width))
        self.sigma_max = check.number("forward.sigma_max", sigma_max, minimum=0)
        self.d_min = check.number("forward.d_min", d_min, minimum=0, maximum=1)
        self.first_angle = math.atan(math.exp(-check.number("forward.log_snr_max", log_snr_max, above=0) / 2))
        self.register_buffer("eigenvalues", neumann_eigenvalues(height, width), persistent=False)

    def angle(self, t: Tensor) -> Tensor:
        """c(t), (B, 1, 1, 1); 0 at t = 0."""
        time = self.column(t)
        angle = self.first_angle + (math.pi / 2 - 2 * self.first_angle) * time
        return torch.where(time > 0, angle, torch.zeros_like(angle))

    def gain(self, t: Tensor) -> Tensor:
        """a(t) d(t), (B, 1, H, W)."""
        blur = self.sigma_max * (math.pi / 2 * self.column(t)).sin() ** 2
        kept = (1 - self.d_min) * (-self.eigenvalues.to(t) * blur**2 / 2).exp() + self.d_min
        return self.angle(t).cos() * kept

    def std(self, t: Tensor) -> Tensor:
        """s(t), (B, 1, 1, 1)."""
        return self.angle(t).sin()
