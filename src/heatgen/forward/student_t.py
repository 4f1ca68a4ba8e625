"""forward=student_t: noise of a size that is drawn for each sample and hidden, a multivariate Student-t. PFGM++."""

from typing import Any

from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.composed import Composed
from heatgen.forward.process import ForwardProcess
from heatgen.noise import SampleNoise

MOST = 65536  # degrees of freedom, each a normal number for each sample; there the noise is Gaussian but for 0.3 %


class StudentT(Composed):
    """u_t = A(t) u_0 + L(t) R eps, R = sqrt(D / chi^2_D) of each sample: Student-t noise with D degrees of freedom.

    For L = sigma its density falls as (1 + |u_t - u_0|^2 / (D sigma^2))^{-(D + N) / 2} in N dimensions. No network or
    sampler knows R: v = E[u_0 | u_t] is an average over it, and the flow dA v + dL L^-1 (u - A v) is exact without it, while
    the score and Gaussian reverse steps are not. Before a draw R is 1, as it is for D -> infinity.

    Args:
        degrees_of_freedom: D, 1 to 65536; None: Gaussian noise.
        settings: those of `Composed`.
    Raises:
        ConfigError: for values out of range.
    Source: Xu et al. 2023 (PFGM++), section 3 and proposition 1, with r = sigma sqrt(D).
    """

    size: Tensor | None = None  # R, (B, 1), after a draw

    def __init__(self, degrees_of_freedom: int | None = 2048, **settings: Any):
        super().__init__(**settings)
        key, self.degrees = "forward.degrees_of_freedom", degrees_of_freedom
        if self.degrees is not None and check.integer(key, self.degrees, minimum=1) > MOST:
            raise ConfigError(f"{key} must be at most {MOST}, not {self.degrees}; null is the limit, Gaussian noise.")
        self.is_random = self.withholds_cond = self.random_noise_only = self.degrees is not None

    def draw(self, rng: SampleNoise) -> Tensor | None:
        """R of each sample, (B, 1) float64, from D normal numbers; None for Gaussian noise."""
        if self.degrees is None:
            return None
        return (self.degrees / rng.normal(int(self.degrees)).double().square().sum(1, keepdim=True)).sqrt()

    def bind(self, draws: Tensor | None) -> ForwardProcess:
        """The map with noise of these sizes."""
        return self if draws is None else self._with_buffer("size", draws.to(self.times))

    def std(self, t: Tensor) -> Tensor:
        """R noise_scale(t) colour_i(t)."""
        std = super().std(t)
        return std if self.size is None else self.column(self.size.to(t)) * std
