"""How good draws of a field are, as pure functions: each gives one number a field, in float64.

draws: (n, B, C, H, W), n >= 2 draws for each of B fields; truth: (B, C, H, W), the fields.
"""

import math

import torch
from torch import Tensor

SPECTRAL_RADII = 10  # the rings that a spectral error compares, where a field has so many
SMALLEST = torch.finfo(torch.float64).tiny  # under a logarithm: an empty ring is a large error, not an infinite one
BLOCK = 2**16  # numbers that a sum over pairs holds at a time


def mse(u: Tensor, truth: Tensor) -> Tensor:
    """The mean of (u - truth)^2 over pixels, and over draws where u has them; (B,)."""
    squares = (u.double() - truth.double()).square().flatten(-3).mean(-1)
    return squares.mean(0) if squares.dim() == 2 else squares


def excess_mse(draws: Tensor, mean: Tensor) -> Tensor:
    """|m - mean|^2 per pixel for the mean m of infinitely many draws, (B,): without bias, so it may be below 0.

    |m_n - mean|^2 - s^2 / n with the mean m_n and the variance s^2 of n draws, pixel by pixel.
    """
    return mse(draws.double().mean(0), mean) - draws.double().var(0).flatten(1).mean(1) / len(draws)


def crps(draws: Tensor, truth: Tensor) -> Tensor:
    """The continuous ranked probability score, mean over pixels, (B,), on the scale of a pixel.

    E|x - y| - E|x - x'| / 2 with the fair estimator, which divides the pairs by n (n - 1).
    Sources: Gneiting and Raftery 2007; Ferro 2014.
    """
    x, n = draws.double(), len(draws)
    weights = 2 * torch.arange(1, n + 1, dtype=torch.float64, device=x.device) - n - 1
    pairs = 2 * torch.einsum("n,n...->...", weights, x.sort(0).values)  # the sum of |x_i - x_j| over all i, j
    return ((x - truth.double()).abs().mean(0) - pairs / (2 * n * (n - 1))).flatten(1).mean(1)


def energy_score(draws: Tensor, truth: Tensor) -> Tensor:
    """The energy score of the whole field over sqrt(D), (B,), on the scale of a pixel.

    (E|x - y| - E|x - x'| / 2) / sqrt(D), D = C H W, with Euclidean norms and the fair estimator. Source: see `crps`.
    """
    x, y, n = draws.double().flatten(2).transpose(0, 1), truth.double().flatten(1), len(draws)
    near = (x - y[:, None]).norm(dim=2).mean(1)
    pairs = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist").sum((1, 2))
    output: Tensor = (near - pairs / (2 * n * (n - 1))) / y.shape[1] ** 0.5
    return output


def pit(draws: Tensor, truth: Tensor, uniform: Tensor) -> Tensor:
    """The randomised probability integral transform of each pixel, (B, C, H, W) in [0, 1).

    (rank + U) / (n + 1), rank the number of draws below the truth, U uniform on [0, 1) (on [0, m + 1) where m draws equal
    the truth): uniform exactly where truth and draws are exchangeable; NaN where the truth or a draw is not finite.
    uniform: U, like truth.
    """
    below, equal = (draws < truth).double().sum(0), (draws == truth).double().sum(0)
    known = draws.isfinite().all(0) & truth.isfinite()
    return torch.where(known, (below + uniform.double() * (equal + 1)) / (len(draws) + 1), torch.nan)


def least_draws(percent: int) -> int:
    """The fewest draws whose ranks tell anything of the central interval of `percent` %: 2 / (1 - level) - 1, rounded up.

    Of n draws without any spread, the truth has rank 0 or n, and 1 - (1 - level) (n + 1) / 2 of the pixels would be covered.
    """
    return -(-200 // (100 - percent)) - 1


def coverage(transform: Tensor, level: float) -> Tensor:
    """The share of pixels whose PIT lies in the central interval of probability `level`, (B,); NaN where one has no PIT."""
    inside = ((transform - 0.5).abs() <= level / 2).double()
    return torch.where(transform.isnan(), torch.nan, inside).flatten(1).mean(1)


def rank_histogram(transform: Tensor, n: int) -> Tensor:
    """The share of pixels of each rank 0 .. n, (B, n + 1), from the PIT of n draws; NaN where a pixel has none."""
    return histogram(transform, n + 1)


def identical(draws: Tensor) -> Tensor:
    """Whether all draws of a field are the same to a millionth of its largest pixel, (B,) 0 or 1."""
    first, rest = draws[0].flatten(1), draws[1:].flatten(2)
    return ((rest - first).abs().amax((0, 2)) <= 1e-6 * first.abs().amax(1)).double()


# mixtures of Gaussians: mean, std (K, B, ...), K equally probable normal laws of each pixel; truth (B, ...) ---------------


def mean_distance(mean: Tensor, std: Tensor) -> Tensor:
    """E|X| for X ~ N(mean, std^2), elementwise: 2 s phi(m / s) + m (2 Phi(m / s) - 1)."""
    z = mean / (std * math.sqrt(2))
    return std * math.sqrt(2 / math.pi) * (-z.square()).exp() + mean * torch.erf(z)


def mixture_crps(mean: Tensor, std: Tensor, truth: Tensor) -> Tensor:
    """The exact CRPS of a mixture, mean over pixels, (B,), on the scale of a pixel.

    (1/K) sum_k A(y - m_k, s_k^2) - 1/(2 K^2) sum_kl A(m_k - m_l, s_k^2 + s_l^2) with A(m, s^2) = E|N(m, s^2)|.
    Source: Grimit et al. 2006.
    """
    count, size = len(mean), max(1, BLOCK // len(mean))
    parts = []
    for m, s, y in zip(*(x.reshape(-1, truth.numel()).double().split(size, 1) for x in (mean, std, truth)), strict=True):
        variance = s.square()
        pairs = mean_distance(torch.zeros_like(m), (2 * variance).sqrt()).sum(0)
        for k in range(1, count):
            pairs += 2 * mean_distance(m[k:] - m[k - 1], (variance[k:] + variance[k - 1]).sqrt()).sum(0)
        parts.append(mean_distance(y - m, s).mean(0) - pairs / (2 * count**2))
    return torch.cat(parts).reshape(len(truth), -1).mean(1)


def mixture_pit(mean: Tensor, std: Tensor, truth: Tensor) -> Tensor:
    """The probability integral transform of each pixel, (1/K) sum_k Phi((y - m_k) / s_k), (B, ...) in [0, 1]."""
    output: Tensor = torch.special.ndtr((truth.double() - mean.double()) / std.double()).mean(0)
    return output


def histogram(transform: Tensor, bins: int) -> Tensor:
    """The share of a field's numbers in each of `bins` equal parts of [0, 1], (B, bins); NaN for a field that has one."""
    flat = transform.flatten(1)
    where = (flat.nan_to_num() * bins).long().clamp(0, bins - 1)
    zero = torch.zeros(len(where), bins, dtype=torch.float64, device=where.device)
    share = torch.full(where.shape, 1 / where.shape[1], dtype=zero.dtype, device=zero.device)
    return zero.scatter_add_(1, where, share).where(~flat.isnan().any(1, keepdim=True), torch.nan)


# spectra ----------------------------------------------------------------------------------------------------------------


def radii(height: int, width: int) -> Tensor:
    """The distance of each pixel from (H/2, W/2), truncated to a whole number: of a centred spectrum; (H, W) int64."""
    y, x = torch.arange(height) - height // 2, torch.arange(width) - width // 2
    return (y[:, None] ** 2 + x[None, :] ** 2).double().sqrt().long()


def count_radii(height: int, width: int) -> int:
    """The number of whole rings of a centred spectrum, without its centre."""
    return max(1, min(height, width) // 2)


def ring_sums(values: Tensor, rings: Tensor, count: int) -> Tensor:
    """Sums over the coefficients of ring 0 .. count-1, (..., H, W) -> (..., count); rings: (H, W); others are dropped."""
    flat, where = values.double().flatten(-2), rings.flatten().to(values.device)
    kept = where < count
    zero = torch.zeros(*flat.shape[:-1], count, dtype=torch.float64, device=values.device)
    return zero.index_add(-1, where[kept], flat[..., kept])


def ring_means(values: Tensor, count: int) -> Tensor:
    """The mean over channels and the ring of radius 1 .. count of a centred spectrum, (..., C, H, W) -> (..., count)."""
    rings = radii(*values.shape[-2:])
    sizes = ring_sums(torch.ones(rings.shape), rings, count + 1).to(values.device)
    return (ring_sums(values.double().mean(-3), rings, count + 1) / sizes)[..., 1:]


def power(u: Tensor, count: int) -> Tensor:
    """|F u|^2 with the unitary FFT F: the mean over channels and rings of radius 1 .. count, (..., count)."""
    waves = torch.fft.fft2(u.double(), norm="ortho").abs().square()
    return ring_means(torch.fft.fftshift(waves, dim=(-2, -1)), count)


def paper_spectrum(u: Tensor, count: int) -> Tensor:
    """The mean of |Re F^-1 u| over channels and rings of radius 1 .. count, (..., count); changes with a field's place."""
    waves = torch.fft.ifft2(u.double()).real.abs()
    return ring_means(torch.fft.fftshift(waves, dim=(-2, -1)), count)


def spectral_error(draws: Tensor, truth: Tensor, spectrum: str = "power") -> Tensor:
    """The mean over draws and radii 1 .. 10 (fewer in small fields) of |log p(truth) - log p(draw)|, (B,).

    spectrum: power, p is the power of a ring; paper, p is the ring's mean of |Re F^-1 u|, as the original code has it.
    Source: Holzschuh et al. 2023, section 3.2.
    """
    p, count = {"power": power, "paper": paper_spectrum}[spectrum], min(SPECTRAL_RADII, count_radii(*truth.shape[-2:]))
    gap = p(draws, count).clamp(min=SMALLEST).log() - p(truth, count).clamp(min=SMALLEST).log()
    return gap.abs().mean((0, 2))
