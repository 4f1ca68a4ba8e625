"""The terms of an evidence lower bound, and sums over levels that are not all measured for each image, as pure functions."""

import math

import torch
from torch import Tensor

from heatgen.noise import SampleNoise

NEGLIGIBLE = 1e-9  # nats


def gaussian_kl(gap: Tensor, variance: Tensor, std: Tensor) -> Tensor:
    """KL(N(m, diag v) || N(m', diag std^2)) in nats, (B,), from gap = (m - m')^2 by coefficient, (B, D).

    1/2 sum [ v / std^2 + gap / std^2 - 1 - ln(v / std^2) ]; v and std broadcast to (B, D). In float64.
    """
    precision, ratio = std.double() ** -2, variance.double() / std.double() ** 2
    return 0.5 * (gap.double() * precision + (ratio - 1 - ratio.log())).sum(1)


def gaussian_nll(gap: Tensor, std: Tensor) -> Tensor:
    """-ln N(u; m, diag std^2) in nats, (B,), from gap = (u - m)^2 by coefficient, (B, D); std broadcasts to it."""
    return (gap.double() / (2 * std.double() ** 2) + (std.double() * math.sqrt(2 * math.pi)).log()).sum(1)


def prior_kl(states: Tensor, centres: Tensor, variance: Tensor, std: Tensor) -> Tensor:
    """L_K, (B,) nats: an upper bound of KL(q(u_K | u_0) || p), p the kernel density (1/N) sum_i N(centre_i, diag std^2).

    ln N - logsumexp_i(-KL_i), the bound of appendix A.3 at its optimum. In float64.

    Args:
        states: means of q, (B, D).
        centres: (N, D).
        variance: the diagonal of q's covariance, broadcasts to (B, D).
        std: of the kernels, (1, 1) or (1, D).

    Source:
        Rissanen et al. 2023, appendix A.3.
    """
    x, y = states.double() / std.double(), centres.double() / std.double()
    widths = gaussian_kl(torch.zeros_like(x), variance, std)
    return widths + math.log(len(y)) - log_kernels(x, y)


def log_kernels(x: Tensor, y: Tensor) -> Tensor:
    """ln sum_i exp(-|x - y_i|^2 / 2) for each x (B, D), of y (N, D); (B,), in float64.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y, which loses nothing that matters for images in [0, 1].
    """
    exponents = torch.addmm(-y.square().sum(1) / 2, x, y.mT)
    return torch.logsumexp(exponents, dim=1) - x.square().sum(1) / 2


def telling(gain: Tensor, std: Tensor) -> Tensor:
    """Which coefficients, (D,) bool, tell u_K of two images in [0, 1] apart, for kernels of these widths; at least one.

    |c(u) - c(v)|^2 <= D in an orthonormal basis, so the others together change no exponent of `log_kernels` by more than
    D / 2 max gain^2 / std^2 < NEGLIGIBLE.

    Args:
        gain: the diagonal of A(t_K), (D,).
        std: of the kernels, (D,).
    """
    ratio = (gain / std).square() * len(gain) / 2
    return (ratio >= NEGLIGIBLE) | (ratio == ratio.max())


def clustered_sum(values: Tensor, levels: Tensor, num_levels: int) -> tuple[Tensor, Tensor]:
    """Means by level, and each image's part in the error of their sum. values, levels: (n images, m), of 0 .. num_levels-1.

    Values of one image are dependent, so images are clusters: the part of an image is the sum of its residuals, each over
    sqrt(c (c - 1)) for a level measured c times, and the squared standard error is the sum of the squared parts.
    """
    flat = levels.flatten()
    counts = torch.bincount(flat, minlength=num_levels).double()
    means = torch.zeros(num_levels, dtype=torch.float64).index_add_(0, flat, values.double().flatten()) / counts
    weights = (counts * (counts - 1)).rsqrt()
    return means, ((values.double() - means[levels]) * weights[levels]).sum(1)


def level_errors(values: Tensor, levels: Tensor, num_levels: int) -> Tensor:
    """The standard error of each level's mean over the images that were measured there, (num_levels,)."""
    flat, x = levels.flatten(), values.double().flatten()
    zero = torch.zeros(num_levels, dtype=torch.float64)
    counts = torch.bincount(flat, minlength=num_levels).double()
    means = zero.index_add(0, flat, x) / counts
    return (zero.index_add(0, flat, (x - means[flat]).square()) / (counts * (counts - 1))).sqrt()


def balanced_levels(n: int, per_image: int, num_levels: int, seed: int) -> Tensor:
    """Levels of each of n images, (n, per_image) of 0 .. num_levels-1: all equally often, none twice an image."""
    order = SampleNoise([0], seed, "levels").permutation(num_levels)[0]
    images = SampleNoise([0], seed, "images").permutation(n)[0]
    return order[(images[:, None] * per_image + torch.arange(per_image)) % num_levels]
