"""What the network of model=ihd may give, and which of that its untrained network is nearest with."""

import math

import torch
from torch import Tensor

from heatgen.forward.process import TYPICAL_STD, ForwardProcess
from heatgen.model.interface import inverse


def untrained_errors(process: ForwardProcess, noisy: bool = False) -> dict[str, float]:
    """By parametrisation: the expected |target - mu|^2 of a network that gives 0, for white images, mean over the levels.

    With images of standard deviation tau: residual tau^2 |A(s) - A(t)|_F^2 + |b(s) - b(t)|^2 + |L(t)|_F^2; x0
    tau^2 |A(s)|_F^2; ratio r^2 |L(t)|_F^2 with r = A(s) / A(t), and tau^2 |A(s)|_F^2 where A(t) = 0; it is left out where
    A(t) is not one number, or drawn at random: it may come near 0 anywhere. With noisy targets L(t) - L(s) stands for L(t),
    r L(t) - L(s) for r L(t) and A(s) - L(s) L(t)^-1 A(t) for A(s) of x0.
    """
    has_ratio = has_one_ratio(process)
    dimensions, total = math.prod(process.shape), {"residual": 0.0, "ratio": 0.0, "x0": 0.0}
    for t, s in zip(process.times[1:].split(1), process.times[:-1].split(1), strict=True):
        std, kept = process.std(t).double(), process.std(s).double() * noisy

        def size(noise: Tensor) -> float:
            return noise.square().mean().item() * dimensions

        signal = (TYPICAL_STD * process.frobenius(s)) ** 2
        shift = size((process.offset(s) - process.offset(t)).double())
        total["residual"] += (TYPICAL_STD * process.frobenius(t, s)) ** 2 + shift + size(std - kept)
        lacking = process.frobenius(s, t if kept.any() else None)  # where noises are the same at all levels but 0
        if process.is_diagonal:
            rest = process.gain(s) - kept * inverse(std) * process.gain(t)
            lacking = float(rest.double().expand(1, *process.shape).norm())
        total["x0"] += (TYPICAL_STD * lacking) ** 2
        if has_ratio:
            ratio = safe_ratio(process, t, s).item()
            total["ratio"] += size(ratio * std - kept) + (0.0 if ratio else signal)
    if not has_ratio:
        del total["ratio"]
    return {name: error / process.num_levels for name, error in total.items()}


def has_one_ratio(process: ForwardProcess) -> bool:
    """Whether A(s) / A(t) is one number that is known."""
    return process.is_scalar and not process.has_random_gain


def safe_ratio(process: ForwardProcess, t: Tensor, s: Tensor) -> Tensor:
    """A(s) / A(t), and 0 where A(t) = 0: nothing of the image is left to scale."""
    before, after = process.gain(s), process.gain(t)
    return torch.where(after == 0, torch.zeros_like(after), before / after)
