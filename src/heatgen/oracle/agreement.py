"""Whether fields agree with the Gaussian law that is asserted of them, within their own sampling error.

For u ~ N(m, C), C diagonal in a basis, the whitened coefficients z = (c - m) / sqrt(S) are independent N(0, 1): of n fields,
sum z_k^2 is chi^2_n and sum z_k / sqrt(n) is N(0, 1). Each statistic below is brought to N(0, 1) or chi^2 exactly (of the
shape of the law: to the accuracy of the central limit of bounded numbers), so its false alarms are known: all of them
together, over all splits, cry wolf once in a million data sets (`FALSE_ALARMS`).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from scipy import special
from torch import Tensor

from heatgen.basis import Basis, Fourier
from heatgen.noise import SampleNoise

FALSE_ALARMS = 1e-6  # of all statistics and splits together, for fields of the law that is asserted
STATISTICS = 100  # at most, of all splits; each takes an equal share of that
SILENT = 1e-8  # of the mean variance, below which a coefficient is none: rounding of float32 drowns it
TRACE = 1e-3  # the deviation of a coefficient that should be none, in units of an average one's, that is still rounding


@dataclass(frozen=True)
class Waves:
    """The waves of a basis of H x W pixels, flattened for C channels: |k| in waves a side, direction, and -k.

    Args:
        radius: (D,), half waves a side for cosines.
        angle: (D,), of (k_x, k_y) in radians.
        opposite: (D,), the place of -k; its own where the basis has no such pairs.
    """

    radius: np.ndarray
    angle: np.ndarray
    opposite: np.ndarray

    @classmethod
    def of(cls, basis: Basis, shape: tuple[int, ...]) -> "Waves":
        """Those of a Fourier or a cosine basis."""
        channels, height, width = shape
        if isinstance(basis, Fourier):
            y, x = np.fft.fftfreq(height) * height, np.fft.fftfreq(width) * width
        else:
            y, x = np.arange(float(height)), np.arange(float(width))
        y, x = y[:, None] * max(height, width) / height, x[None, :] * max(height, width) / width  # in one unit of length
        place = np.arange(height * width).reshape(height, width)
        if isinstance(basis, Fourier):
            place = place[-np.arange(height)[:, None], -np.arange(width)]
        number = np.arange(channels)[:, None] * height * width
        angle = np.arctan2(y + 0 * x, x + 0 * y)
        wave = [np.tile(values.ravel(), channels) for values in (np.hypot(x, y), angle)]
        return cls(wave[0], wave[1], (number + place.ravel()).ravel())


@dataclass(frozen=True)
class Finding:
    """A statistic that the law does not explain: what was measured, and how many deviations it is away."""

    words: str
    away: float


def normal_scores(squares: np.ndarray, freedom: int) -> np.ndarray:
    """chi^2 numbers as the N(0, 1) numbers of the same probability."""
    low, high = special.chdtr(freedom, squares), special.chdtrc(freedom, squares)
    return np.asarray(np.where(low < high, 1, -1) * special.ndtri(np.clip(np.minimum(low, high), 1e-300, 0.5)))


class Agreement:
    """The statistics of the fields of one split against a law.

    Args:
        u: the fields, (n, C, H, W).
        spectrum: S, the asserted variance of each coefficient, (C, H, W).
        basis: of the coefficients.
        mean: the asserted mean field, (C, H, W); None: 0.
    """

    def __init__(self, u: Tensor, spectrum: Tensor, basis: Basis, mean: Tensor | None = None):
        u = u.double() if mean is None else u.double() - mean.double()
        self.basis, self.shape = basis, tuple(spectrum.shape)
        self.waves = Waves.of(basis, self.shape)
        self.coefficients: np.ndarray = basis(u).flatten(1).numpy()
        self.variances: np.ndarray = spectrum.double().flatten().numpy()
        self.heard: np.ndarray = self.variances > SILENT * self.variances.mean()
        self.z = self.coefficients[:, self.heard] / np.sqrt(self.variances[self.heard])
        self.n, self.m = self.z.shape
        self.squares = np.square(self.z).sum(0)
        self.scores = normal_scores(self.squares, self.n)

    def findings(self) -> list[Finding]:
        """What the law does not explain, in the order in which it helps to be told."""
        if not self.m or not self.n:
            return [] if self.m else [Finding("the law asserted is 0 everywhere", np.inf)]
        share = FALSE_ALARMS / STATISTICS
        found = [*self._silent(), *self._scale(), *self._shape(), *self._directions(), *self._single(), *self._means()]
        found += [*self._fields(), *self._pixels(), *self._phases(), *self._normality()]
        return [Finding(words, away) for words, away, chance in found if chance < share]

    # each gives (what was measured, deviations away, the probability under the law) --------------------------------------

    def _silent(self) -> Iterator[tuple[str, float, float]]:
        """Coefficients that the law says are 0, such as the constant mode."""
        if self.heard.all():
            return
        rms = np.sqrt(np.square(self.coefficients[:, ~self.heard]).mean(0) / self.variances.mean())
        worst = int(rms.argmax())
        if rms[worst] > TRACE:
            place = int(np.flatnonzero(~self.heard)[worst])
            name = "the constant mode" if self.waves.radius[place] == 0 else f"coefficient {self._place(place)}"
            size = f"{rms[worst]:.3g} times an average coefficient's"
            yield f"{name} has a deviation of {size} where the law has 0", np.inf, 0.0

    def _scale(self) -> Iterator[tuple[str, float, float]]:
        ratio, error = self.squares.sum() / (self.n * self.m), np.sqrt(2 / (self.n * self.m))
        yield self._told(f"variance {ratio:.4g} +- {error:.2g} times the law's", self.squares.sum(), self.n * self.m)

    def _shape(self) -> Iterator[tuple[str, float, float]]:
        """The slope of the spectrum, and its rings."""
        radius = self.waves.radius[self.heard]
        rings = np.maximum(radius, 0).astype(int)
        power = np.bincount(rings, self.squares) / np.maximum(np.bincount(rings) * self.n, 1)
        there = np.flatnonzero(np.bincount(rings))
        shown = sorted({there[0], there[len(there) // 4], there[len(there) // 2], there[-1]})
        words = "power over the law's by wave number |k|: " + ", ".join(f"{k}: {power[k]:.3g}" for k in shown)
        yield self._contrast(np.log(np.maximum(radius, 0.5)), self._slope(radius))
        scores = np.array([normal_scores(self.squares[rings == k].sum(), self.n * (rings == k).sum()) for k in there])
        yield self._largest(words, scores)

    def _slope(self, radius: np.ndarray) -> str:
        """The slope of log(power / law) over log |k|, with its error, in words."""
        moving = radius > 0
        if np.unique(radius[moving]).size < 2:
            return "another slope"
        x = np.log(radius[moving])
        x = x - x.mean()
        value = (x * np.log(np.maximum(self.squares[moving] / self.n, 1e-300))).sum() / np.square(x).sum()
        return f"power like the law's times |k|^({value:+.3g} +- {np.sqrt(2 / (self.n * np.square(x).sum())):.2g})"

    def _directions(self) -> Iterator[tuple[str, float, float]]:
        """Anisotropy beside that of the law."""
        angle, moving = self.waves.angle[self.heard], self.waves.radius[self.heard] > 0
        along = [np.abs(np.cos(angle)) > 0.9, np.abs(np.sin(angle)) > 0.9]
        x, y = (self.squares[part & moving].sum() / max(1, (part & moving).sum() * self.n) for part in along)
        words = f"power over the law's of waves along x {x:.3g}, along y {y:.3g}"
        for wave in (np.cos(2 * angle), np.sin(2 * angle), np.cos(4 * angle), np.sin(4 * angle)):
            yield self._contrast(np.where(moving, wave, 0), words)

    def _single(self) -> Iterator[tuple[str, float, float]]:
        """Each coefficient's variance: the worst, and all together."""
        worst = int(np.abs(self.scores).argmax())
        place, ratio = self._place(int(np.flatnonzero(self.heard)[worst])), self.squares[worst] / self.n
        yield self._largest(f"variance of coefficient {place} {ratio:.3g} times the law's", self.scores)
        spread = np.square(self.scores).mean()
        words = f"variances of single coefficients spread {np.sqrt(spread):.3g} times as far about the law's as they should"
        yield self._told(words, spread * self.m, self.m)

    def _means(self) -> Iterator[tuple[str, float, float]]:
        mean = self.z.sum(0) / np.sqrt(self.n)
        worst = int(np.abs(mean).argmax())
        place, size = self._place(int(np.flatnonzero(self.heard)[worst])), abs(mean[worst]) / np.sqrt(self.n)
        yield self._largest(f"mean of coefficient {place} {size:.3g} deviations where the law has 0", mean)
        words = f"means of coefficients {np.sqrt(np.square(mean).mean()):.3g} times as large as sampling explains"
        yield self._told(words, np.square(mean).sum(), self.m)

    def _fields(self) -> Iterator[tuple[str, float, float]]:
        """The power of each field: fields that are scaled one by one have the wrong spread."""
        power = np.square(self.z).sum(1)
        scores = normal_scores(power, self.m)
        low, high = power.min() / self.m, power.max() / self.m
        words = f"power of single fields from {low:.3g} to {high:.3g} times the law's"
        yield self._largest(words, scores)
        yield self._told(words, np.square(scores).sum(), self.n)

    def _pixels(self) -> Iterator[tuple[str, float, float]]:
        """The variance of whitened fields in each pixel: fields that are not alike everywhere."""
        squares = np.square(self.white).sum(0)
        scores = normal_scores(squares, self.n)
        words = f"variance of whitened pixels from {squares.min() / self.n:.3g} to {squares.max() / self.n:.3g} of 1"
        yield self._largest(words, scores)
        yield self._told(words, np.square(scores).sum(), scores.size)

    def _phases(self) -> Iterator[tuple[str, float, float]]:
        """The even and odd parts of waves, (z_k +- z_-k) / sqrt 2: fields that are symmetric or tied to a place."""
        place = np.cumsum(self.heard) - 1
        own, other = np.flatnonzero(self.heard), self.waves.opposite[self.heard]
        pair = (own < other) & self.heard[other] & np.isclose(self.variances[own], self.variances[other], rtol=1e-6)
        if not pair.any():
            return
        left, right = self.z[:, place[own[pair]]], self.z[:, place[other[pair]]]
        squares = np.concatenate([np.square(left + sign * right).sum(0) / 2 for sign in (1, -1)])
        even, odd = (half.mean() / self.n for half in np.split(squares, 2))
        scores = normal_scores(squares, self.n)
        words = f"power over the law's of even waves {even:.3g}, of odd waves {odd:.3g}"
        yield self._largest(words, scores)
        yield self._told(words, np.square(scores).sum(), scores.size)

    def _normality(self) -> Iterator[tuple[str, float, float]]:
        """Skewness and kurtosis, by Legendre polynomials of the probability transform (Neyman's smooth test)."""
        for name, values in (("coefficients", self.z), ("pixels of whitened fields", self.white)):
            t = 2 * special.ndtr(values) - 1
            skew, heavy = (5 * t**3 - 3 * t) / 2, (35 * t**4 - 30 * t**2 + 3) / 8
            flat = (values - values.mean()) / max(values.std(), 1e-300)
            moments = f"skewness {(flat**3).mean():.3g}, excess kurtosis {(flat**4).mean() - 3:.3g}"
            for polynomial, size in ((skew, 7), (heavy, 9)):
                away = float(abs(polynomial.mean()) * np.sqrt(size * values.size))
                yield f"{name} are not Gaussian: {moments}", away, 2 * float(special.ndtr(-away))

    # parts ----------------------------------------------------------------------------------------------------------------

    @property
    def white(self) -> np.ndarray:
        """The fields with variance 1 in every coefficient, (n, D): independent N(0, 1) in every pixel.

        Coefficients that are none in the law are filled with such numbers, always the same.
        """
        noise = SampleNoise(range(self.n), "law").normal(self.heard.size, dtype=torch.float64)
        noise[:, torch.from_numpy(self.heard)] = torch.from_numpy(self.z)
        return self.basis.inverse(noise.reshape(self.n, *self.shape)).flatten(1).numpy()

    def _place(self, flat: int) -> str:
        """(channel, row, column) of a coefficient, the channel where there are several."""
        place = tuple(map(int, np.unravel_index(flat, self.shape)))
        return str(place if self.shape[0] > 1 else place[1:])

    def _contrast(self, weights: np.ndarray, words: str) -> tuple[str, float, float]:
        """The weighted sum of all scores, N(0, 1)."""
        weights = weights - weights.mean()
        size = np.sqrt(np.square(weights).sum())
        away = abs(float((weights * self.scores).sum() / size)) if size > 1e-9 else 0.0
        return words, away, 2 * float(special.ndtr(-away))

    @staticmethod
    def _largest(words: str, scores: np.ndarray) -> tuple[str, float, float]:
        """The largest of many N(0, 1) numbers."""
        away = float(np.abs(scores).max())
        return words, away, 2 * scores.size * float(special.ndtr(-away))

    @staticmethod
    def _told(words: str, square: float, freedom: int) -> tuple[str, float, float]:
        """A chi^2 number, on both sides."""
        away = abs(float(normal_scores(np.asarray(square), freedom)))
        return words, away, 2 * float(special.ndtr(-away))
