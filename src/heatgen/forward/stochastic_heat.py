"""forward=stochastic_heat: the heat equation on a periodic box, driven by noise that is white in time and space."""

import math

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import Fourier
from heatgen.forward.levels import SPACINGS
from heatgen.forward.process import ForwardProcess

SCHEMES = ("exact", "euler_maruyama")
NOISE_PER = ("pixel", "area")
AGREE = 32 * 32  # pixels of the grid on which noise per pixel and noise per area are the same


class StochasticHeat(ForwardProcess):
    """du = alpha Laplace u dt + g dW on a box of length 2 pi with periodic walls, 0 <= t <= end.

    Wave number k (whole numbers) has A(t) = exp(-alpha k^2 t) and, with the exact Ornstein-Uhlenbeck transition,
    L(t)^2 = g^2 (1 - exp(-2 alpha k^2 t)) / (2 alpha k^2), g^2 t at k = 0. W is white, with one of two strengths on a
    grid of H x W pixels of area a = 4 pi^2 / (H W):

        pixel: variance t in each pixel, as published; a wave's amplitude then has noise that falls like 1 / sqrt(H W), so a
            finer grid is another, quieter process;
        area: variance t a_0 / a, a_0 the area of a pixel of 32 x 32: space-time white noise of a strength that no grid
            changes, so every wave has the same noise at every resolution.

    Both are the same at 32 x 32 (wherever H W = 1024). g is in field units / sqrt(time) for a pixel of area a_0.

    Args:
        end: the time of level K.
        alpha: the diffusivity.
        g: the strength of the noise.
        noise_per: pixel | area, what has the variance g^2 t.
        spacing: of the levels: uniform | log (of the original: coarser near 0) | quadratic (finer near 0).
        scheme: exact | euler_maruyama, u <- A(dt) u + g sqrt(dt) z in `euler_steps` equal steps, whose mean is exact and
            whose variance is too large by x / (1 - exp(-x)), x = 2 alpha k^2 dt, asymptotically.
        euler_steps: of euler_maruyama, over the whole time; None: num_levels. For the others see `heatgen.forward`.
    Source: Holzschuh et al. 2023, section 3.2.
    """

    eigenvalues: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int = 32,
        end: float = 0.2,
        alpha: float = 1.0,
        g: float = 0.1,
        spacing: str = "uniform",
        scheme: str = "exact",
        euler_steps: int | None = None,
        noise_per: str = "pixel",
    ):
        height, width = check.shape("data.shape", shape)[-2:]
        num_levels = check.integer("forward.num_levels", num_levels, minimum=1)
        end = check.number("forward.end", end, above=0)
        times = SPACINGS[check.choice("forward.spacing", spacing, list(SPACINGS))](num_levels, end)
        super().__init__(shape, times, Fourier(height, width))
        self.alpha = check.number("forward.alpha", alpha, above=0)
        self.g = check.number("forward.g", g, minimum=0)
        if check.choice("forward.noise_per", noise_per, NOISE_PER) == "area":
            self.g *= math.sqrt(height * width / AGREE)
        self.scheme = check.choice("forward.scheme", scheme, SCHEMES)
        steps = num_levels if euler_steps is None else check.integer("forward.euler_steps", euler_steps, minimum=1)
        self.euler_step = end / steps
        y, x = (torch.fft.fftfreq(size, 1 / size, dtype=torch.float64) for size in (height, width))
        self.register_buffer("eigenvalues", self.alpha * (y[:, None] ** 2 + x[None, :] ** 2), persistent=False)

    def gain(self, t: Tensor) -> Tensor:
        """exp(-alpha k^2 t), (B, 1, H, W)."""
        return (-self.eigenvalues.to(t) * self.column(t)).exp()

    def std(self, t: Tensor) -> Tensor:
        """The standard deviation of the accumulated noise, (B, 1, H, W)."""
        if self.scheme == "exact":
            return self.g * accumulated(self.eigenvalues.to(t), self.column(t)).sqrt()
        dt = self.euler_step
        whole = (self.column(t) / dt + 1e-9).floor()
        rest = (self.column(t) - whole * dt).clamp(min=0)
        decay = 2 * self.eigenvalues.to(t) * dt  # of the variance in one step
        steps = torch.where(decay > 0, torch.expm1(-decay * whole) / torch.expm1(-decay).clamp(max=-1e-300), whole)
        return self.g * (dt * steps * (-2 * self.eigenvalues.to(t) * rest).exp() + rest).sqrt()

    def is_semigroup(self, s: Tensor) -> bool:
        """True: A(t) A(s)^-1 = exp(-alpha k^2 (t - s))."""
        return True

    def rate(self, t: Tensor) -> Tensor:
        """-alpha k^2, (B, 1, H, W)."""
        return -self.eigenvalues.to(t) * self.column(t.new_ones(t.shape))

    def diffusion(self, t: Tensor) -> Tensor:
        """g, by noise_per, (B, 1, 1, 1)."""
        return torch.full_like(self.column(t), self.g)


def accumulated(eigenvalues: Tensor, t: Tensor) -> Tensor:
    """The integral of exp(-2 lambda s) over s from 0 to t: (1 - exp(-2 lambda t)) / (2 lambda), and t at lambda = 0."""
    safe = torch.where(eigenvalues > 0, eigenvalues, torch.ones_like(eigenvalues))
    return torch.where(eigenvalues > 0, -torch.expm1(-2 * safe * t) / (2 * safe), t)


def finite_differences(u: Tensor, t: float, alpha: float = 1.0, steps: int | None = None) -> Tensor:
    """u after a time t of du/dt = alpha Laplace u, by explicit Euler steps on the five-point stencil; (..., H, W).

    A second solver beside the exact one, of second order in the grid's spacing h = 2 pi / N and first in the step. Stable
    for alpha dt (1/h_y^2 + 1/h_x^2) <= 1/2; None takes the least number of steps at half of that. ValueError where unstable.
    """
    spacing = [2 * math.pi / size for size in u.shape[-2:]]
    stiffness = alpha * t * sum(h**-2 for h in spacing)
    steps = math.ceil(4 * stiffness) if steps is None else steps
    if stiffness > steps / 2:
        raise ValueError(f"{steps} explicit steps are unstable here; take at least {math.ceil(2 * stiffness)}.")
    for _ in range(steps):
        flux = sum((u.roll(1, d) - 2 * u + u.roll(-1, d)) / h**2 for d, h in zip((-2, -1), spacing, strict=True))
        u = u + alpha * t / steps * flux
    return u
