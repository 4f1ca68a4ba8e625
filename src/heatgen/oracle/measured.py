"""A spectrum that is measured on training fields: the Gaussian law of the same means and variances.

Whatever the law of the fields, the mean squared error of the exact answers about this Gaussian is right for the coefficients
that it takes as independent (it is that of the best linear answer); all else is right as far as the fields are Gaussian.
"""

from collections.abc import Iterator

import numpy as np
import torch
from scipy import special
from torch import Tensor

from heatgen.basis import Basis, Fourier
from heatgen.check import ConfigError
from heatgen.oracle.agreement import normal_scores

LEVEL = 1e-3  # below this probability a mean of 0 is given up, and so are variances that are equal by symmetry


def measured_spectrum(u: Tensor, basis: Basis) -> tuple[Tensor, Tensor | None, str]:
    """The variance of each coefficient and the mean field of fields (n, C, H, W), and what they are, in words.

    The mean is 0 unless the fields say otherwise. Variances are averaged over the largest of these sets of coefficients in
    which they are equal within their sampling error: all turns and mirrors of a wave, mirrors, k and -k, k alone. With a
    measured mean m they are those of a further field about m, (1 + 1/n) / (n - 1) sum (c - m)^2.

    Returns:
        S, (C, H, W) float64; the mean field, (C, H, W) float64, or None for 0; and the words.
    Raises:
        ConfigError: for fewer than 2 fields, and fields that are all the same.
    """
    n, shape = len(u), tuple(u.shape[1:])
    if n < 2:
        raise ConfigError("data.law=measure needs at least 2 training fields; use more, or data.law=none.")
    c: np.ndarray = basis(u.double()).flatten(1).numpy()
    mean = c.mean(0)
    about = np.square(c - mean).sum(0)  # (n - 1) times the variances about the mean
    if not about.any():
        raise ConfigError("data.law=measure needs fields that differ, and the training fields are all the same.")
    moved = has_mean(mean, about, n)
    squares, freedom = (about, n - 1) if moved else (np.square(c).sum(0), n)
    words, groups = next((words, groups) for words, groups in symmetries(basis, shape) if equal(squares, freedom, groups))
    spectrum = averaged(squares, groups) / freedom * (1 + 1 / n if moved else 1)
    field = basis.inverse(torch.from_numpy(mean).reshape(1, *shape))[0] if moved else None
    kind = "a mean field too" if moved else "mean 0"
    return torch.from_numpy(spectrum).reshape(shape), field, f"{n} training fields, {words}; {kind}"


def has_mean(mean: np.ndarray, about: np.ndarray, n: int) -> bool:
    """Whether the means of coefficients are too large for a mean of 0, by Student's t of each."""
    moving = about > 1e-12 * about.max()
    if (np.abs(mean[~moving]) > 1e-6 * np.sqrt(about.max() / n)).any():
        return True
    t = mean[moving] / np.sqrt(about[moving] / (n - 1) / n)
    scores = special.ndtri(np.clip(special.stdtr(n - 1, -np.abs(t)), 1e-300, 0.5))
    largest = 2 * scores.size * float(special.ndtr(scores.min()))
    return bool(min(largest, float(special.chdtrc(scores.size, np.square(scores).sum()))) < LEVEL)


def symmetries(basis: Basis, shape: tuple[int, ...]) -> Iterator[tuple[str, np.ndarray]]:
    """Sets of coefficients that a symmetry makes equal, the largest first: what is averaged over, and the set of each."""
    channels, height, width = shape
    periodic = isinstance(basis, Fourier)
    y, x = (
        np.minimum(k, size - k) if periodic else k for k, size in ((np.arange(height), height), (np.arange(width), width))
    )
    rows, columns = np.broadcast_arrays(y[:, None], x[None, :])
    size = max(height, width)
    place = np.arange(height * width).reshape(height, width)

    def groups(key: np.ndarray) -> np.ndarray:
        flat = np.arange(channels)[:, None] * size**2 * 4 + key.reshape(1, -1)
        return np.unique(flat, return_inverse=True)[1].reshape(-1)

    if height == width:
        yield "averaged over turns and mirrors", groups(np.minimum(rows, columns) * size + np.maximum(rows, columns))
    if periodic:
        yield "averaged over mirrors", groups(rows * size + columns)
        mirror = place[-np.arange(height)[:, None], -np.arange(width)]
        yield "averaged over k and -k", groups(np.minimum(place, mirror))
    yield "each coefficient alone", groups(place)


def averaged(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The mean of each set, at all its places."""
    return np.asarray((np.bincount(groups, values) / np.bincount(groups))[groups])


def equal(squares: np.ndarray, freedom: int, groups: np.ndarray) -> bool:
    """Whether sums of squares are those of equal variances within each set."""
    many = np.bincount(groups)[groups] > 1
    if not many.any():
        return True
    pooled = averaged(squares, groups) / freedom
    heard = many & (pooled > 1e-12 * pooled.max())
    scores = normal_scores(squares[heard] / pooled[heard], freedom)
    left = heard.sum() - np.unique(groups[heard]).size
    largest = 2 * scores.size * float(special.ndtr(-np.abs(scores).max(initial=0)))
    return bool(min(largest, float(special.chdtrc(max(left, 1), np.square(scores).sum()))) >= LEVEL)
