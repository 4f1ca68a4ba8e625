"""forward=heat_kernel: Brownian motion. The density of u_t is that of the data, convolved with the heat kernel of R^d."""

import math

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.levels import SPACINGS
from heatgen.forward.process import ForwardProcess

CLOCKS = ("exponential", "geometric", "constant")


class HeatKernel(ForwardProcess):
    """du = g(t) dW, 0 <= t <= end: u_t = u_0 + sigma(t) eps with sigma(t)^2 = int_0^t g^2, and dp/dt = g^2 / 2 Laplace p.

    Clocks: exponential, g = sigma^t, sigma(t)^2 = (sigma^(2 t) - 1) / (2 ln sigma); geometric, sigma(t)^2 =
    sigma_min^2 ((sigma_max / sigma_min)^(2 t / end) - 1), the variance-exploding process with sigma(0) = 0; constant,
    g^2 = 2 diffusivity, sigma(t)^2 = 2 diffusivity t: with diffusivity 1, forward=variance_exploding with other levels.

    Args:
        end: the time of level K.
        clock: exponential | geometric | constant, how g depends on t.
        sigma: of clock=exponential; 1: sigma(t)^2 = t.
        sigma_min, sigma_max: of clock=geometric, in data units.
        diffusivity: of clock=constant, in data units^2 per time. For the others see `heatgen.forward`.
    Source: Song et al. 2021, eq. 9 (geometric) and its toy example (exponential).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int = 100,
        end: float = 1.0,
        clock: str = "exponential",
        sigma: float = 1.1,
        sigma_min: float = 0.01,
        sigma_max: float = 50.0,
        diffusivity: float = 0.5,
        spacing: str = "uniform",
    ):
        num_levels = check.integer("forward.num_levels", num_levels, minimum=1)
        self.end = check.number("forward.end", end, above=0)
        super().__init__(shape, SPACINGS[check.choice("forward.spacing", spacing, list(SPACINGS))](num_levels, self.end))
        self.clock = check.choice("forward.clock", clock, CLOCKS)
        self.sigma = check.number("forward.sigma", sigma, above=0)
        self.sigma_min = check.number("forward.sigma_min", sigma_min, above=0)
        self.sigma_max = check.number("forward.sigma_max", sigma_max, above=0)
        if self.sigma_max <= self.sigma_min:
            raise ConfigError(
                f"forward.sigma_max must be greater than forward.sigma_min = {self.sigma_min:g}, not {self.sigma_max:g}."
            )
        self.diffusivity = check.number("forward.diffusivity", diffusivity, above=0)

    def _rate_and_scale(self) -> tuple[float, float]:
        """(r, c) of g(t)^2 = c exp(r t), which all clocks are."""
        if self.clock == "constant":
            return 0.0, 2 * self.diffusivity
        if self.clock == "exponential":
            return 2 * math.log(self.sigma), 1.0
        rate = 2 * math.log(self.sigma_max / self.sigma_min) / self.end
        return rate, self.sigma_min**2 * rate

    def gain(self, t: Tensor) -> Tensor:
        """1, (B, 1, 1, 1)."""
        return torch.ones_like(self.column(t))

    def std(self, t: Tensor) -> Tensor:
        """sigma(t), (B, 1, 1, 1)."""
        rate, scale = self._rate_and_scale()
        t = self.column(t)
        return (scale * (torch.expm1(rate * t) / rate if rate else t)).sqrt()

    def diffusion(self, t: Tensor) -> Tensor:
        """g(t), also at t = 0, (B, 1, 1, 1)."""
        rate, scale = self._rate_and_scale()
        return math.sqrt(scale) * (rate / 2 * self.column(t)).exp()
