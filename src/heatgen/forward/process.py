"""The forward process: how a clean field u_0 becomes u_t, one law for every map.

    u_t = A(t) u_0 + b(t) + L(t) eps,    eps ~ N(0, I)

The author of a map writes `gain(t)` and `std(t)`, the diagonals of A and L over the coefficients of a basis (the alpha and
sigma of diffusion models), and `offset(t)` where b is not 0. Everything else is derived here, once.
"""

import copy
from collections.abc import Callable, Sequence, Sized
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from heatgen import check
from heatgen.basis import Basis, Pixel, exact, upcast
from heatgen.check import ConfigError
from heatgen.forward import noise_level, validation
from heatgen.noise import SampleNoise

TYPICAL_STD = 0.25  # of a pixel of an image in [0, 1]; used to judge whether level K destroys anything, not in the law
MOST_LEVELS = 100_000  # each of which is looked at before a training


def derivative(function: Callable[[Tensor], Tensor], t: Tensor) -> tuple[Tensor, Tensor]:
    """function(t) and its derivative in t, by forward-mode differentiation."""
    t = t.contiguous()  # forward mode writes beside t, which an expanded t does not allow
    value, slope = torch.func.jvp(function, (t,), (torch.ones_like(t),))[:2]
    return value, slope


def shared(t: Tensor) -> Tensor:
    """Times, (B,), as (1,) where they are made as one for all, `time.expand(B)`: which is known without a look at them."""
    return t[:1] if t.stride(0) == 0 else t


class TrainingData(Protocol):
    """What a map may ask of the data that a model of it is trained on (`heatgen.data.module.DataModule`)."""

    def images(self, split: str) -> Sized: ...
    def get(self, split: str, indices: Sequence[int]) -> Tensor: ...


class ForwardProcess(nn.Module):
    """A linear Gaussian degradation u_t = A(t) u_0 + b(t) + L(t) eps, diagonal in `basis`, with levels `times`.

    All methods are pure: they change no argument and return no tensor that shares storage with one. They compute in float32
    (float64 where u is) with autocast off. Throughout, t and s are times, (B,), on the map's own clock; u, u0 and eps are
    fields, (B, C, H, W); a diagonal is broadcastable to (B, C, H, W), over the coefficients of `basis`.

    Args:
        shape: (C, H, W) of one field.
        times: (K+1,), the ascending times of the levels 0 .. K; times[0] = 0.
        basis: the basis of A and L; None: pixels.
    """

    times: Tensor

    def __init__(self, shape: tuple[int, ...], times: Tensor, basis: Basis | None = None):
        super().__init__()
        self.shape = check.shape("data.shape", shape)
        if len(times) - 1 > MOST_LEVELS:
            raise ConfigError(f"forward.num_levels must be at most {MOST_LEVELS}, not {len(times) - 1}.")
        self.basis = basis or Pixel()
        self.register_buffer("times", times.double(), persistent=False)

    # what an author writes --------------------------------------------------------------------------------------------

    def gain(self, t: Tensor) -> Tensor:
        """The diagonal of A(t); gain(0) = 1."""
        raise NotImplementedError

    def std(self, t: Tensor) -> Tensor:
        """The diagonal of L(t); not negative."""
        raise NotImplementedError

    def offset(self, t: Tensor) -> Tensor:
        """The coefficients of b(t); 0 unless a map overrides it."""
        return torch.zeros_like(self.column(t))

    def prepare(self, data: TrainingData) -> None:
        """Measure on training data what the map needs to know, into persistent buffers; before there is a model of it."""

    def is_semigroup(self, s: Tensor) -> bool | Tensor:
        """Whether A(t) A(s)^-1 = A(t - s), which then holds even where both gains underflow; (B, 1, 1, 1) if by s."""
        return False

    # what a map can do ------------------------------------------------------------------------------------------------

    is_diagonal: bool = True  # whether A and L are diagonal in `basis`, and so known between the levels too
    is_random: bool = False  # whether A(t) or L(t) is drawn at random
    random_noise_only: bool = False  # whether all that is drawn, and hidden, is one factor of L for each sample
    withholds_cond: bool = False  # whether the network is not given what was drawn

    @property
    def has_random_gain(self) -> bool:
        """Whether A(t) is drawn at random."""
        return self.is_random and not self.random_noise_only

    @property
    def is_scalar(self) -> bool:
        """Whether A(t) is one number for all coefficients."""
        return self.is_diagonal and self.gain(self.times[-1:])[0].numel() == 1

    @property
    def is_markov(self) -> bool:
        """Whether `step_std` is defined from each level to the next, and not 0 everywhere in the last step."""
        if not self.is_diagonal:
            return False
        variance = torch.zeros(1)
        for s, t in zip(self.times[:-1].split(1), self.times[1:].split(1), strict=True):
            ratio, lost = self._transition(s, t)
            variance = self.std(t) ** 2 - (ratio * self.std(s)) ** 2
            if (lost is not None and lost.any()) or self._shrinks(variance, t).any():
                return False
        return bool((variance > 0).any())

    @property
    def name(self) -> str:
        """The config name of the map: the stem of the file it is written in."""
        return check.option_name(self)

    # states -----------------------------------------------------------------------------------------------------------

    @property
    def num_levels(self) -> int:
        """K, the number of steps from u_0 to u_K."""
        return len(self.times) - 1

    def column(self, t: Tensor) -> Tensor:
        """t of shape (B,) as (B, 1, 1, 1), ready to multiply a batch of fields."""
        return t.reshape(-1, *[1] * len(self.shape))

    def level(self, t: Tensor) -> Tensor:
        """The level 0 .. K at time t, linear between levels; (B,) float64."""
        above = torch.searchsorted(self.times, t.to(self.times).contiguous()).clamp(1, self.num_levels)
        low, high = self.times[above - 1], self.times[above]
        return above - 1 + (t.to(self.times) - low) / (high - low)

    def time_of(self, level: Tensor) -> Tensor:
        """The time at a level of [0, K], linear between levels, the inverse of `level`; (B,) float64."""
        low = level.long().clamp(max=self.num_levels - 1)
        return torch.lerp(self.times[low], self.times[low + 1], level.to(self.times) - low)

    def raised(self, t: Tensor, factor: float, least: float, most: float) -> list[Tensor | None]:
        """See `noise_level.raised`."""
        return noise_level.raised(self, t, factor, least, most)

    def mean(self, u0: Tensor, t: Tensor) -> Tensor:
        """The noise-free state A(t) u_0 + b(t)."""
        return self._in_basis(u0, lambda c: self.gain(t).to(c) * c + self.offset(t).to(c))

    def scale_coefficients(self, eps: Tensor, std: Tensor) -> Tensor:
        """The field whose coefficients are those of eps times the diagonal `std`; L(t) eps for std(t)."""
        if std.shape[1:].numel() == 1:  # the same for every coefficient: no basis needed
            return std.to(upcast(eps)) * upcast(eps)
        return self._in_basis(eps, lambda c: std.to(c) * c)

    def perturb(self, u0: Tensor, t: Tensor, eps: Tensor | None = None) -> Tensor:
        """A draw of u_t given u_0: mean(u0, t) + L(t) eps; eps is drawn afresh if None."""
        eps = torch.randn_like(upcast(u0)) if eps is None else eps
        return self.mean(u0, t) + self.scale_coefficients(eps, self.std(t))

    # steps of the Markov process with these marginals -----------------------------------------------------------------

    def ratio(self, s: Tensor, t: Tensor) -> Tensor:
        """The diagonal of A(t) A(s)^-1, s <= t. ConfigError where A(s) is not invertible."""
        ratio, lost = self._transition(s, t)
        if lost is not None:
            sentence = "A({:.4g}) of forward={} is not invertible: no step starts there."
            check.refuse(lost, lambda: sentence.format(s.max().item(), self.name))
        return ratio

    def _transition(self, s: Tensor, t: Tensor) -> tuple[Tensor, Tensor | None]:
        """The diagonal of A(t) A(s)^-1, and where A(s) has no inverse, None: nowhere."""
        semigroup = self.is_semigroup(s)
        if semigroup is True:
            return self.gain(t - s), None
        before = self.gain(s)
        ratio, lost = self.gain(t) / before, before == 0
        if semigroup is False:
            return ratio, lost
        return torch.where(semigroup, self.gain(t - s), ratio), lost.logical_and(~semigroup)

    def step(self, u: Tensor, s: Tensor, t: Tensor, eps: Tensor | None = None) -> Tensor:
        """A draw of u_t given u_s = u, s <= t: the exact transition A(t) A(s)^-1 (u - b(s)) + b(t) + Q eps.

        Q^2 = L(t)^2 - (A(t) A(s)^-1 L(s))^2, see `step_std`; eps is drawn afresh if None. ConfigError where Q^2 < 0 (no
        Markov process has these marginals) or A(s) is not invertible.
        """
        std = self.step_std(s, t)
        eps = torch.randn_like(upcast(u)) if eps is None else eps
        return u + self.increment(u, s, t) + self.scale_coefficients(eps, std)

    def increment(self, u: Tensor, s: Tensor, t: Tensor) -> Tensor:
        """The mean change of u_s = u until t: A(t) A(s)^-1 (u - b(s)) + b(t) - u (not divided by t - s)."""
        ratio, start, end = self.ratio(s, t), self.offset(s), self.offset(t)
        return self._in_basis(u, lambda c: (ratio - 1).to(c) * c + (end - ratio * start).to(c))

    def step_std(self, s: Tensor, t: Tensor) -> Tensor:
        """The diagonal of Q, the noise that `step` from s to t adds; ConfigError where there is no such step."""
        variance = self.std(t) ** 2 - (self.ratio(s, t) * self.std(s)) ** 2
        sentence = "forward={} has no step from t={:.4g}: the noise would have to shrink."
        check.refuse(self._shrinks(variance, t), lambda: sentence.format(self.name, s.max().item()))
        return variance.clamp(min=0).sqrt()

    def _shrinks(self, variance: Tensor, t: Tensor) -> Tensor:
        """Where Q^2 is below 0 by more than rounding."""
        return variance < -1e-12 * self.std(t).max() ** 2

    def coupling(self, s: Tensor, t: Tensor) -> Tensor:
        """The posterior coefficient rho, s < t: given u_0 and u_t, u_s has the noise rho eps_t + sqrt(L(s)^2 - rho^2) z.

        rho = L(s)^2 A(t) A(s)^-1 / L(t) where a Markov process has these marginals, and 0 (the noises of all levels are
        independent, as in inverse heat dissipation) where none has or A(s) is not invertible. A diagonal, like `std`.
        """
        start, end = self.std(s), self.std(t)
        ratio, lost = self._transition(s, t)
        ratio = ratio if lost is None else torch.where(lost, torch.zeros_like(ratio), ratio)
        has_markov_forward = end**2 - (ratio * start) ** 2 >= -1e-12 * end**2
        rho = start**2 * ratio / end
        return torch.where(has_markov_forward & (end > 0) & (ratio.abs() > 0), rho, torch.zeros_like(rho))

    # the process as an SDE, du = f dt + g dW --------------------------------------------------------------------------

    def rate(self, t: Tensor) -> Tensor:
        """The diagonal of A'(t) A(t)^-1, by forward-mode differentiation of `gain`."""
        gain, slope = derivative(self.gain, t)
        return slope / gain

    def drift(self, u: Tensor, t: Tensor) -> Tensor:
        """f(u, t) = A' A^-1 (u - b) + b'."""
        offset, slope = derivative(self.offset, t)
        rate = self.rate(t)
        return self._in_basis(u, lambda c: rate.to(c) * (c - offset.to(c)) + slope.to(c))

    def diffusion(self, t: Tensor) -> Tensor:
        """The diagonal of g(t): g^2 = (L^2)' - 2 A' A^-1 L^2."""
        variance, slope = derivative(lambda time: self.std(time) ** 2, t)
        return (slope - 2 * self.rate(t) * variance).clamp(min=0).sqrt()

    # maps that are drawn at random ------------------------------------------------------------------------------------

    def draw(self, rng: SampleNoise) -> Tensor | None:
        """The random numbers of the map for each sample of `rng`, (B, ...); None where the map has none."""
        return None

    def outcomes(self) -> Tensor | None:
        """All that `draw` can give, each as probable, (n, ...); None where the map is not drawn, or from infinitely many."""
        return None

    def bind(self, draws: Tensor | None) -> "ForwardProcess":
        """The deterministic map with these random numbers; itself where there are none."""
        return self

    def _with_buffer(self, name: str, value: Tensor) -> Self:
        """A shallow copy of this map with another value of one buffer; everything else is shared."""
        bound = copy.copy(self)
        bound._buffers = dict(self._buffers)
        setattr(bound, name, value)
        return bound

    def cond(self, t: Tensor, s: Tensor) -> Tensor | None:
        """What the network is given of a drawn map for a step from t back to s, (B, M); None: nothing."""
        return None

    # what a map destroys ----------------------------------------------------------------------------------------------

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
        return float(gain.double().expand(1, *self.shape).norm())

    def validate(self) -> None:
        """ConfigError unless the map keeps the law; warns where level K destroys nothing (`validation.validate`)."""
        validation.validate(self)

    def _in_basis(self, u: Tensor, change: Callable[[Tensor], Tensor]) -> Tensor:
        with exact(u.device):
            return self.basis.inverse(change(self.basis(upcast(u))))


class ObservedProcess(ForwardProcess):
    """A deterministic map seen through white noise: L(t) = sigma I for t > 0, and L(0) = 0.

    The forward processes of inverse heat dissipation are of this kind.

    Args:
        shape: (C, H, W) of one field.
        times: (K+1,), the times of the levels.
        sigma: on the scale of pixels in [0, 1]; 0 is allowed, but a model that generates needs > 0.
        basis: the basis of A; None: pixels.
    Source: Rissanen et al. 2023, section 3.1.
    """

    def __init__(self, shape: tuple[int, ...], times: Tensor, sigma: float, basis: Basis | None = None):
        super().__init__(shape, times, basis)
        self.sigma = check.number("forward.sigma", sigma, minimum=0)

    def std(self, t: Tensor) -> Tensor:
        """sigma for t > 0, else 0; (B, 1, 1, 1)."""
        return self.sigma * (self.column(t) > 0).to(t)
