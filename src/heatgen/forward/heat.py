"""forward=heat: the heat equation with insulating walls, that is, blur."""

from typing import TypedDict

from torch import Tensor

from heatgen import check
from heatgen.basis import Basis, Cosine, neumann_eigenvalues
from heatgen.check import ConfigError
from heatgen.forward.levels import blur_widths
from heatgen.forward.process import ObservedProcess


class HeatOptions(TypedDict, total=False):
    """The options of `Heat` but for its shape and basis, for maps that are made of it."""

    num_levels: int
    sigma: float
    sigma_min: float
    sigma_max: float | None


class Heat(ObservedProcess):
    """u_t = exp(t Laplace) u_0 + sigma eps, exact in the cosine basis: mode (n, m) keeps exp(-pi^2 (n^2/H^2 + m^2/W^2) t).

    Clock: t = sigma_B^2 / 2 for a blur of width sigma_B pixels. Levels: K widths, evenly spaced in log.

    Args:
        shape: (C, H, W), any H and W.
        num_levels: K, at least 2.
        sigma_min: the blur width of level 1, in pixels.
        sigma_max: the blur width of level K, in pixels; None: 0.75 x the longer side.
        basis: the basis in which the modes decay; None: cosines. For the others see `heatgen.forward`.
    Raises:
        ConfigError: for sizes that are not positive or widths that do not ascend.
    Source: Rissanen et al. 2023, eqs. 1 and 2.
    """

    eigenvalues: Tensor

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int = 100,
        sigma: float = 0.01,
        sigma_min: float = 0.5,
        sigma_max: float | None = None,
        basis: Basis | None = None,
    ):
        height, width = check.shape("data.shape", shape)[-2:]
        smallest = check.number("forward.sigma_min", sigma_min, above=0)
        largest = 0.75 * max(height, width) if sigma_max is None else check.number("forward.sigma_max", sigma_max, above=0)
        if largest <= smallest:
            raise ConfigError(f"forward.sigma_max must be greater than forward.sigma_min = {smallest:g}, not {largest:g}.")
        num_levels = check.integer("forward.num_levels", num_levels, minimum=2)
        widths = blur_widths(num_levels, smallest, largest)
        super().__init__(shape, widths**2 / 2, sigma, basis or Cosine(height, width))
        self.register_buffer("eigenvalues", neumann_eigenvalues(height, width), persistent=False)

    def gain(self, t: Tensor) -> Tensor:
        """exp(-lambda t), (B, 1, H, W)."""
        return (-self.eigenvalues.to(t) * self.column(t)).exp()

    def is_semigroup(self, s: Tensor) -> bool:
        """True: A(t) A(s)^-1 = exp(-lambda (t - s))."""
        return True

    def rate(self, t: Tensor) -> Tensor:
        """-lambda, (B, 1, H, W)."""
        return -self.eigenvalues.to(t) * self.column(t.new_ones(t.shape))
