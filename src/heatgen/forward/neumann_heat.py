"""forward=neumann_heat: the heat equation on a box with insulating walls, in units of the box; D known or drawn."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from heatgen import check
from heatgen.basis import Cosine, neumann_eigenvalues, stencil_eigenvalues
from heatgen.check import ConfigError
from heatgen.forward.levels import SPACINGS
from heatgen.forward.process import ForwardProcess, ObservedProcess
from heatgen.noise import SampleNoise

SOLVERS = ("dct_semidiscrete", "dct_spectral", "ftcs")
CAUTIOUS = 0.2  # D dt / h^2 of the steps that ftcs takes by default


class NeumannHeat(ObservedProcess):
    """du/dt = D Laplace u, no flux through the walls, 0 <= t <= end, seen through white noise: A(t) u_0 + sigma eps.

    Units: the longer side of the box is 1, so pixels are h = 1 / max(H, W) wide and D is in side^2 / time. In the cosine
    basis, with lambda_kl the eigenvalue of minus the Laplacian, A(t) is by solver
    dct_semidiscrete, exp(-D lambda t), h^2 lambda = (2 - 2 cos(pi k / H)) + (2 - 2 cos(pi l / W)), five-point stencil;
    dct_spectral, exp(-D lambda t), h^2 lambda = pi^2 (k^2 / H^2 + l^2 / W^2), which may undershoot at sharp edges;
    ftcs, (1 - D lambda dt)^n at t = n dt, explicit Euler steps on that stencil, the last one shorter for other times (of
    which none is a Markov step from another where D dt / h^2 > 1/8: the finest waves change sign within a step). Levels
    must be whole steps.
    A D that is drawn is one of the values of `diffusivity_grid`, each as often; before a draw this is the map of their
    geometric mean.

    Args:
        sigma: the noise of the observations, on the scale of the field; level 0 has none.
        diffusivity: D; or [low, high], then D is drawn for each sample.
        diffusivities: how many values, evenly spaced in log, a drawn D may have.
        conditional: whether the network is given a drawn D.
        end: the time of level K.
        solver: dct_semidiscrete | dct_spectral | ftcs.
        steps: of ftcs, over [0, end]; None: the least multiple of num_levels with D dt / h^2 <= 0.2. For the others see
            `heatgen.forward`.
    Raises:
        ConfigError: for values out of range and unstable steps: D dt / h^2 > 1/4, 1/2 where H or W is 1.
    Source: the heat equation; Smith, Numerical Solution of Partial Differential Equations (1985), chapter 2, on stability.
    """

    eigenvalues: Tensor
    diffusivity_grid: Tensor  # (n,), all values of D there are
    diffusivity: Tensor  # (1, 1) before a draw, (B, 1) after it

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int = 19,
        sigma: float = 0.05,
        diffusivity: float | Sequence[float] = 0.05,
        diffusivities: int = 32,
        conditional: bool = False,
        end: float = 1.0,
        spacing: str = "uniform",
        solver: str = "dct_semidiscrete",
        steps: int | None = None,
    ):
        height, width = check.shape("data.shape", shape)[-2:]
        num_levels = check.integer("forward.num_levels", num_levels, minimum=1)
        end = check.number("forward.end", end, above=0)
        times = SPACINGS[check.choice("forward.spacing", spacing, list(SPACINGS))](num_levels, end)
        super().__init__(shape, times, sigma, Cosine(height, width))
        self.solver = check.choice("forward.solver", solver, SOLVERS)
        grid = diffusivity_values(diffusivity, diffusivities)
        self.is_random = len(grid) > 1
        self.conditional = check.boolean("forward.conditional", conditional)
        self.withholds_cond = not conditional and self.is_random
        unit = neumann_eigenvalues(height, width) if solver == "dct_spectral" else stencil_eigenvalues(height, width)
        self.register_buffer("eigenvalues", unit * max(height, width) ** 2, persistent=False)
        self.register_buffer("diffusivity_grid", grid, persistent=False)
        middle = grid.log().mean().exp() if self.is_random else grid.clone()
        self.register_buffer("diffusivity", middle.reshape(1, 1), persistent=False)
        least = math.ceil(grid.max().item() * end * max(height, width) ** 2 / CAUTIOUS - 1e-9)
        steps = -(-least // num_levels) * num_levels if steps is None else check.integer("forward.steps", steps, minimum=1)
        self.dt = end / steps
        if self.solver == "ftcs":
            self._check_stable(grid)
            whole = self.times / self.dt
            if (whole - whole.round()).abs().max() > 1e-6:
                raise ConfigError(
                    "forward.solver=ftcs needs levels that are whole steps; use forward.spacing=uniform and a multiple of "
                    f"forward.num_levels = {num_levels} as forward.steps, or another solver."
                )

    def _check_stable(self, diffusivity: Tensor) -> None:
        """ConfigError unless steps of dt are stable with these values of D."""
        limit = 0.25 if min(self.shape[-2:]) > 1 else 0.5
        numbers = diffusivity * self.dt * max(self.shape[-2:]) ** 2

        def sentence() -> str:
            number, end, levels = numbers.max().item(), self.times[-1].item(), self.num_levels
            least = math.ceil(end / self.dt * number / limit / levels - 1e-9) * levels
            return (
                f"forward.steps = {round(end / self.dt)} is unstable, as D dt / h^2 = {number:.4g} is above {limit:g}; "
                f"use at least {least}."
            )

        check.refuse(numbers > limit * (1 + 1e-9), sentence)

    def draw(self, rng: SampleNoise) -> Tensor | None:
        """D of each sample, (B, 1), a value of the grid; None where there is one value only."""
        if not self.is_random:
            return None
        n = len(self.diffusivity_grid)
        chosen = (rng.uniform(1) * n).long().clamp(max=n - 1)
        return self.diffusivity_grid[chosen.to(self.diffusivity_grid.device)]

    def outcomes(self) -> Tensor | None:
        """The values of `diffusivity_grid`, (n, 1); None where there is one value only."""
        return self.diffusivity_grid[:, None] if self.is_random else None

    def bind(self, draws: Tensor | None) -> ForwardProcess:
        """The map with these diffusivities, (B, 1) or (B,): any positive values. ConfigError where ftcs is unstable."""
        if draws is None:
            return self
        if self.solver == "ftcs":
            self._check_stable(draws)
        return self._with_buffer("diffusivity", draws.to(self.times).reshape(-1, 1))

    def gain(self, t: Tensor) -> Tensor:
        """exp(-D lambda t), or its approximation by steps; (B, 1, H, W)."""
        speed = self.column(self.diffusivity) * self.eigenvalues  # float64: an item does not depend on its batch or clock
        if self.solver != "ftcs":
            return (-speed * self.column(t.to(speed))).exp().to(t)
        whole, rest = (self.column(part) for part in self._whole_steps(t))
        return ((1 - speed * self.dt) ** whole * (1 - speed * rest)).to(t)

    def _whole_steps(self, t: Tensor) -> tuple[Tensor, Tensor]:
        """The number of whole steps until t and the time that is left, both float64 like t."""
        whole = (t.detach().to(self.times) / self.dt + 1e-6).floor()
        return whole, t.to(self.times) - whole * self.dt

    def is_semigroup(self, s: Tensor) -> bool | Tensor:
        """True, but for ftcs only where s is a whole number of steps, (B, 1, 1, 1)."""
        return self.solver != "ftcs" or self.column(self._whole_steps(s)[1].abs() <= 1e-5 * self.dt)

    def rate(self, t: Tensor) -> Tensor:
        """-D lambda, and for ftcs the slope within a step over its value; (B, 1, H, W)."""
        if self.solver == "ftcs":
            return super().rate(t)
        return -(self.column(self.diffusivity) * self.eigenvalues).to(t) * self.column(t.new_ones(t.shape))

    def cond(self, t: Tensor, s: Tensor) -> Tensor | None:
        """log D less its mean over its deviation on the grid, and 0, (B, 2); 0 where D is fixed. None if withheld."""
        if not self.conditional:
            return None
        log, grid = self.diffusivity.log(), self.diffusivity_grid.log()
        score = ((log - grid.mean()) / grid.std(correction=0).clamp(min=1e-12)).to(t).expand(max(len(t), len(log)), 1)
        return torch.cat([score, torch.zeros_like(score)], dim=1)


def diffusivity_values(diffusivity: float | Sequence[float], count: int) -> Tensor:
    """All values of D: the one that is given, (1,), or `count` evenly spaced in log from low to high, (count,) float64."""
    if isinstance(diffusivity, str) or not isinstance(diffusivity, Sequence):
        return torch.tensor([check.number("forward.diffusivity", diffusivity, above=0)], dtype=torch.float64)
    if len(diffusivity) != 2:
        raise ConfigError(f"forward.diffusivity must be a number or a pair [low, high], not {list(diffusivity)}.")
    low, high = check.bracket("forward.diffusivity", diffusivity)
    count = check.integer("forward.diffusivities", count, minimum=2)
    return torch.linspace(math.log(low), math.log(high), count, dtype=torch.float64).exp()


def finite_differences(u: Tensor, t: float, diffusivity: float = 0.05, steps: int | None = None) -> Tensor:
    """u after a time t of du/dt = D Laplace u, by explicit Euler steps on the stencil with edges replicated; (..., H, W).

    A second solver beside the exact one, in the same units (the longer side is 1). Stable for a = D dt / h^2 <= 1/4, 1/2
    where H or W is 1; None takes the least number of steps with a <= 0.2. ValueError where unstable.
    """
    total, limit = diffusivity * t * max(u.shape[-2:]) ** 2, 0.25 if min(u.shape[-2:]) > 1 else 0.5
    steps = max(1, math.ceil(total / CAUTIOUS - 1e-9)) if steps is None else steps
    if total > steps * limit * (1 + 1e-9):
        raise ValueError(f"{steps} explicit steps are unstable here; take at least {math.ceil(total / limit)}.")
    for _ in range(steps):
        rows = torch.cat([u[..., :1, :], u, u[..., -1:, :]], dim=-2)
        columns = torch.cat([u[..., :1], u, u[..., -1:]], dim=-1)
        u = u + total / steps * (rows.diff(n=2, dim=-2) + columns.diff(n=2, dim=-1))
    return u
