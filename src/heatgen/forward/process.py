"""The forward process: how a clean field u_0 becomes u_t, one law for every map.

    u_t = A(t) u_0 + b(t) + L(t) eps,    eps ~ N(0, I)

The author of a map writes `gain(t)` and `std(t)`, the diagonals of A and L over the coefficients of a basis (and
`offset(t)` where b is not 0). Everything else is derived here, once.
"""

import copy
import warnings
from collections.abc import Callable
from typing import Self

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.basis import Basis, Pixel, upcast
from heatgen.check import ConfigError
from heatgen.noise import SampleNoise

TYPICAL_STD = 0.25  # of a pixel of an image in [0, 1]; used to say whether level K destroys anything, not in the law
LOSSLESS = 0.9  # the share of coefficients above the noise at level K from which validate() warns


def derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """function(t) and its derivative in t, by forward-mode differentiation."""
    t = t.contiguous()  # forward mode writes beside t, which an expanded t does not allow
    value, slope = torch.func.jvp(function, (t,), (torch.ones_like(t),))[:2]
    return value, slope


class ForwardProcess(nn.Module):
    """A linear Gaussian degradation, diagonal in `basis`, with levels `times`.

    shape: of one field, (C, H, W). times: (K+1,) ascending on the map's own clock, times[0] = 0.
    All methods are pure: no argument is changed and no result shares storage with one. They compute in float32
    (float64 where u is) with autocast off. `t` and `s` are (B,) tensors on the map's clock; u and u0 are (B, C, H, W).
    """

    times: Tensor

    def __init__(self, shape: tuple[int, ...], times: Tensor, basis: Basis | None = None):
        super().__init__()
        self.shape = check.shape("data.shape", shape)
        self.basis = basis or Pixel()
        self.register_buffer("times", times.double(), persistent=False)

    # what an author writes ------------------------------------------------------------------------------------------

    def gain(self, t: Tensor) -> Tensor:
        """The diagonal of A(t) over the coefficients, broadcastable to (B, C, H, W). gain(0) = 1."""
        raise NotImplementedError

    def std(self, t: Tensor) -> Tensor:
        """The diagonal of L(t) over the coefficients, broadcastable to (B, C, H, W); not negative."""
        raise NotImplementedError

    def offset(self, t: Tensor) -> Tensor:
        """The coefficients of b(t), broadcastable to (B, C, H, W). 0 unless a map says otherwise."""
        return torch.zeros_like(self.column(t))

    # what everyone else calls ---------------------------------------------------------------------------------------

    @property
    def num_levels(self) -> int:
        """K, the number of steps from u_0 to u_K."""
        return len(self.times) - 1

    def column(self, t: Tensor) -> Tensor:
        """t of shape (B,) as (B, 1, 1, 1), ready to multiply a batch of fields."""
        return t.reshape(-1, *[1] * len(self.shape))

    def level(self, t: Tensor) -> Tensor:
        """The number k of the level at time t, linear between levels; (B,) float64."""
        above = torch.searchsorted(self.times, t.to(self.times).contiguous()).clamp(1, self.num_levels)
        low, high = self.times[above - 1], self.times[above]
        return above - 1 + (t.to(self.times) - low) / (high - low)

    def mean(self, u0: Tensor, t: Tensor) -> Tensor:
        """The noise-free state A(t) u_0 + b(t)."""
        return self._in_basis(u0, lambda c: self.gain(t).to(c) * c + self.offset(t).to(c))

    def noise(self, eps: Tensor, t: Tensor) -> Tensor:
        """L(t) eps for white noise eps of u's shape."""
        return self.scale_coefficients(eps, self.std(t))

    def scale_coefficients(self, eps: Tensor, std: Tensor) -> Tensor:
        """White noise eps, given standard deviations over the coefficients, broadcastable to (B, C, H, W)."""
        if std.shape[1:].numel() == 1:  # the same for every coefficient: no basis needed
            return std.to(upcast(eps)) * upcast(eps)
        return self._in_basis(eps, lambda c: std.to(c) * c)

    def perturb(self, u0: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """A draw of u_t given u_0: mean(u0, t) + L(t) eps. `noise` is eps; drawn afresh if None."""
        eps = torch.randn_like(upcast(u0)) if noise is None else noise
        return self.mean(u0, t) + self.noise(eps, t)

    def ratio(self, s: Tensor, t: Tensor) -> Tensor:
        """The diagonal of A(t) A(s)^-1, s <= t. ConfigError where A(s) cannot be inverted."""
        if self.is_semigroup(s):
            return self.gain(t - s)
        gain = self.gain(s)
        if (gain == 0).any():
            raise ConfigError(f"A({s.max().item():.4g}) of forward={self.name} is not invertible: no step starts there.")
        return self.gain(t) / gain

    def step(self, u: Tensor, s: Tensor, t: Tensor, noise: Tensor | None = None) -> Tensor:
        """A draw of u_t given u_s = u, s <= t: the exact Gaussian transition of the Markov process with these marginals.

        u_t = A(t) A(s)^-1 (u - b(s)) + b(t) + Q eps with Q^2 = L(t)^2 - (A(t) A(s)^-1 L(s))^2. ConfigError where Q^2 < 0
        (no Markov process has these marginals) or A(s) cannot be inverted.
        """
        std = self.step_std(s, t)
        eps = torch.randn_like(upcast(u)) if noise is None else noise
        return u + self.increment(u, s, t) + self.scale_coefficients(eps, std)

    def increment(self, u: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """The mean change of u_s = u until t: A(t) A(s)^-1 (u - b(s)) + b(t) - u (not divided by t - s)."""
        ratio, start, end = self.ratio(s, t), self.offset(s), self.offset(t)
        return self._in_basis(u, lambda c: (ratio - 1).to(c) * c + (end - ratio * start).to(c))

    def step_std(self, s: Tensor, t: Tensor) -> Tensor:
        """Q, the diagonal of the noise that `step` from s to t adds; ConfigError where there is no such step."""
        variance = self.std(t) ** 2 - (self.ratio(s, t) * self.std(s)) ** 2
        if self._shrinks(variance, t):
            raise ConfigError(f"forward={self.name} has no step from t={s.max():.4g}: the noise would have to shrink.")
        return variance.clamp(min=0).sqrt()

    def _shrinks(self, variance: Tensor, t: Tensor) -> bool:
        """Whether Q^2 is below 0 by more than rounding."""
        return bool((variance < -1e-12 * self.std(t).max() ** 2).any())

    def coupling(self, s: Tensor, t: Tensor) -> Tensor:
        """rho, such that the noise of u_s given u_0 and u_t has mean rho eps_t and variance L(s)^2 - rho^2; s < t.

        rho = L(s)^2 A(t) A(s)^-1 / L(t) where a Markov process has these marginals, and 0 (the noises of all levels are
        independent, as in inverse heat dissipation) where none has or A(s) cannot be inverted. Diagonal, like `std`.
        """
        start, end, before = self.std(s), self.std(t), self.gain(s)
        if self.is_semigroup(s):
            ratio = self.ratio(s, t)
        else:
            ratio = torch.where(before == 0, torch.zeros_like(before), self.gain(t) / before)
        has_markov_forward = end**2 - (ratio * start) ** 2 >= -1e-12 * end**2
        rho = start**2 * ratio / end
        return torch.where(has_markov_forward & (end > 0) & (ratio.abs() > 0), rho, torch.zeros_like(rho))

    def rate(self, t: Tensor) -> Tensor:
        """The diagonal of A'(t) A(t)^-1, by forward-mode differentiation of `gain`."""
        gain, slope = derivative(self.gain, t)
        return slope / gain

    def drift(self, u: Tensor, t: Tensor) -> Tensor:
        """f(u, t) of the process as an SDE du = f dt + g dW: A' A^-1 (u - b) + b'."""
        offset, slope = derivative(self.offset, t)
        rate = self.rate(t)
        return self._in_basis(u, lambda c: rate.to(c) * (c - offset.to(c)) + slope.to(c))

    def diffusion(self, t: Tensor) -> Tensor:
        """The diagonal of g(t) of that SDE over the coefficients: g^2 = (L^2)' - 2 A' A^-1 L^2."""
        variance, slope = derivative(lambda time: self.std(time) ** 2, t)
        return (slope - 2 * self.rate(t) * variance).clamp(min=0).sqrt()

    # what a map can do ------------------------------------------------------------------------------------------------

    is_diagonal: bool = True  # whether A and L are diagonal in `basis`, and so known between the levels too
    is_random: bool = False  # whether A(t) is drawn at random
    withholds_cond: bool = False  # whether it is, and the network is not told which one it was

    @property
    def is_scalar(self) -> bool:
        """Whether A(t) is one number for all coefficients."""
        return self.is_diagonal and self.gain(self.times[-1:])[0].numel() == 1

    @property
    def is_markov(self) -> bool:
        """Whether a step leads from each level to the next, and the last one has noise: `step_std` is defined, Q > 0."""
        if not self.is_diagonal:
            return False
        variance = torch.zeros(1)
        for s, t in zip(self.times[:-1].split(1), self.times[1:].split(1), strict=True):
            if not self.is_semigroup(s) and (self.gain(s) == 0).any():
                return False
            variance = self.std(t) ** 2 - (self.ratio(s, t) * self.std(s)) ** 2
            if self._shrinks(variance, t):
                return False
        return bool((variance > 0).any())

    def is_semigroup(self, s: Tensor) -> bool:
        """Whether A(t) A(s)^-1 = A(t - s) for these s, which then holds even where both gains underflow."""
        return False

    # maps that are drawn at random ------------------------------------------------------------------------------------

    def draw(self, rng: SampleNoise) -> Tensor | None:
        """The random numbers of the map for each sample of `rng`, (B, ...); None where the map has none."""
        return None

    def bind(self, draws: Tensor | None) -> "ForwardProcess":
        """The deterministic map with these random numbers; itself where there are none."""
        return self

    def _with_buffer(self, name: str, value: Tensor) -> Self:
        """A shallow copy of this map with another value of one buffer; all else is shared."""
        bound = copy.copy(self)
        bound._buffers = dict(self._buffers)
        setattr(bound, name, value)
        return bound

    def cond(self, t: Tensor, s: Tensor) -> Tensor | None:
        """What the network is told of a drawn map for a step from t back to s, (B, M); None: nothing."""
        return None

    # what a map is like -------------------------------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """The config name of the map: the stem of the file it is written in."""
        return type(self).__module__.rsplit(".", 1)[-1]

    def singular_values(self, t: Tensor) -> Tensor:
        """All singular values of A(t) for one time t, (1,): descending, (C * H * W,) float64."""
        return self.gain(t).double().abs().expand(1, *self.shape).flatten().sort(descending=True).values

    def share_above_noise(self, t: Tensor) -> float:
        """The share of singular values of A(t), times a typical pixel's deviation (0.25), above the noise; t: (1,)."""
        std = self.std(t).double().expand(1, *self.shape).flatten().sort(descending=True).values
        return (self.singular_values(t) * TYPICAL_STD > std).double().mean().item()

    def frobenius(self, t: Tensor, s: Tensor | None = None) -> float:
        """The Frobenius norm of A(t), or of A(t) - A(s), for one time, (1,)."""
        gain = self.gain(t) if s is None else self.gain(t) - self.gain(s)
        return gain.double().expand(1, *self.shape).norm().item()

    def validate(self) -> None:
        """Raise ConfigError unless A(0) = I, b(0) = 0, the levels ascend from 0 and every level is finite.

        Warns where level K destroys no information: then samples are training images encoded and decoded again.
        """
        times = self.times
        if times[0] != 0 or (times.diff() <= 0).any():
            raise ConfigError(f"The levels of forward={self.name} must ascend strictly from 0.")
        probe = torch.rand(1, *self.shape, generator=torch.Generator().manual_seed(0)).to(times.device)
        too_large = None  # the first level whose square overflows, as it would in a loss
        for k, t in enumerate(times.split(1)):
            state = self.mean(probe, t)
            if not (state.isfinite().all() and self.std(t).isfinite().all()):
                raise ConfigError(f"forward={self.name} is not finite at level {k} of {self.num_levels}; {self.remedy}.")
            if too_large is None and not state.square().sum().isfinite():
                too_large = k
            if k == 0:
                self._check_start((state - probe).abs().max().item())
        if too_large is not None:
            where = f"level {too_large} of {self.num_levels}"
            raise ConfigError(f"forward={self.name} is so large at {where} that its square overflows; {self.remedy}.")
        self._warn_if_lossless()

    remedy = "use fewer levels"  # what validate() advises where a level is not finite

    def _check_start(self, gap: float) -> None:
        if gap > 1e-5:
            raise ConfigError(f"forward={self.name} has A(0) != I: the network would never see the data.")

    def _warn_if_lossless(self) -> None:
        kept = self.share_above_noise(self.times[-1:])
        if kept > LOSSLESS:
            share = "every coefficient" if kept == 1 else f"{kept:.0%} of all coefficients"
            message = f"forward={self.name} keeps {share} above the noise at its last level: "
            warnings.warn(message + "samples will be copies of training images.", stacklevel=3)

    def _in_basis(self, u: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        with torch.autocast(u.device.type, enabled=False):
            return self.basis.inverse(change(self.basis(upcast(u))))


class ObservedProcess(ForwardProcess):
    """A deterministic map seen through white noise: L(t) = sigma I for t > 0, and L(0) = 0.

    The forward processes of inverse heat dissipation are of this kind. sigma: on the scale of pixels in [0, 1]; > 0 for
    a model that generates, 0 allowed. Source: Rissanen et al. 2023, section 3.1.
    """

    def __init__(self, shape: tuple[int, ...], times: Tensor, sigma: float, basis: Basis | None = None):
        super().__init__(shape, times, basis)
        self.sigma = check.number("forward.sigma", sigma, minimum=0)

    def std(self, t: Tensor) -> Tensor:
        """sigma for t > 0, else 0; (B, 1, 1, 1)."""
        return self.sigma * (self.column(t) > 0).to(t)
