"""Integrals of exp(p v - q v^2 / 2) over an interval: what an unknown amplitude leaves of a Gaussian likelihood."""

import math

import torch
from scipy.special import roots_legendre
from torch import Tensor
from torch.special import erfcx


def rule(nodes: int) -> list[list[float]]:
    """Points and weights of the Gauss-Legendre rule on [-1/2, 1/2]; pairs (v, w) with sum w = 1."""
    points, weights = roots_legendre(nodes)
    return [[float(v) / 2, float(w) / 2] for v, w in zip(points, weights, strict=True)]


def log_average(p: Tensor, q: Tensor) -> Tensor:
    """log of the integral of exp(p v - q v^2 / 2) over [-1/2, 1/2], q >= 0, with neither overflow nor cancellation.

    By quadrature where it is nearly flat (p, q small), by erf where the peak p / q is inside, and by erfcx where it is
    beyond an end: then it is exp(|p| / 2 - q / 8) sqrt(pi / 2 q) (erfcx(x_1) - exp(-|p|) erfcx(x_2)),
    x = (|p| -+ q / 2) / sqrt(2 q).
    """
    p, result = p.abs(), torch.empty_like(p)
    flat = p + q < 1
    beyond = ~flat & (2 * p >= q)
    inside = ~flat & ~beyond
    a, b = p[flat], q[flat]
    result[flat] = torch.stack([w * (a * v - b * v**2 / 2).exp() for v, w in rule(12)]).sum(0).log()
    a, b = p[beyond], q[beyond].clamp(min=1e-300)
    near, far = (erfcx((a + sign * b / 2) / (2 * b).sqrt()) for sign in (-1, 1))
    result[beyond] = a / 2 - b / 8 + 0.5 * (math.pi / (2 * b)).log() + (near - (-a).exp() * far).log()
    a, b = p[inside], q[inside]
    left, right = (torch.erf((b / 2 + sign * a) / (2 * b).sqrt()) for sign in (-1, 1))
    result[inside] = a**2 / (2 * b) + 0.5 * (math.pi / (2 * b)).log() + (left + right).log()
    return result


def tilted_moments(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and variance of the law on [-1/2, 1/2] with density ~ exp(p v - q v^2 / 2), q >= 0; like p.

    Gauss-Legendre about the mode, over what is within exp(-40) of it: exact to rounding also far out, where the closed
    forms of a truncated normal law cancel.
    """
    sign, p = torch.where(p < 0, -1.0, 1.0).to(p), p.abs()
    mode = torch.where(2 * p >= q, torch.full_like(p, 0.5), p / q.clamp(min=1e-300))
    slope = (p - q * mode).clamp(min=0)
    reach = 80 / (slope + (slope**2 + 80 * q).sqrt())  # slope reach + q reach^2 / 2 = 40
    low, high = torch.maximum(-0.5 - mode, -reach), torch.minimum(0.5 - mode, reach)
    total, first, second = (torch.zeros_like(p) for _ in range(3))
    for v, w in rule(64):
        y = (low + high) / 2 + (high - low) * v
        density = w * (slope * y - q * y**2 / 2).exp()
        total, first, second = total + density, first + density * y, second + density * y**2
    mean = first / total
    return sign * (mode + mean), second / total - mean**2
