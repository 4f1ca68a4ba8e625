"""Trajectories of a forward map, as neural processes see them: noisy frames at some of the levels, context and targets."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.process import ForwardProcess, ObservedProcess
from heatgen.frames import Frames
from heatgen.noise import SampleNoise
from heatgen.regime.split import Split

PRIVILEGED_DIM = 3  # maximum, mean and entropy
NOISE = 0.05  # of observations, for maps that do not say


@dataclass
class Task:
    """Frames of B trajectories: a context, and targets to be predicted from it.

    context: (B, N) and target: (B, M), noisy frames, times on the map's clock; target_clean: the targets without noise,
    (B, M, C, H, W); privileged: features of each clean context and target frame, (B, N + M, 3), of `privileged_features`;
    pixel_mask: (B, N, 1, H, W) bool, the pixels of the context that are observed, None: all; cond: the map's random numbers,
    (B, 2), or None.
    """

    context: Frames
    target: Frames
    target_clean: Tensor
    privileged: Tensor
    pixel_mask: Tensor | None = None
    cond: Tensor | None = None


def observation_noise(process: ForwardProcess, noise_std: float | None) -> float:
    """The deviation of the noise on every frame.

    Args:
        process: the map, whose sigma it is where it is observed through noise.
        noise_std: what the user asks for; None for the map's own, or 0.05 where it has none.

    Raises:
        ConfigError: it is 0.
    """
    std = getattr(process, "sigma", NOISE) if noise_std is None and isinstance(process, ObservedProcess) else noise_std
    std = NOISE if std is None else std
    if std == 0:
        raise ConfigError(
            f"Neural processes need noise on their frames, and forward={process.name} has none; raise forward.sigma, or set "
            "model.noise_std."
        )
    return check.number("model.noise_std", std, above=0)


def clean_frames(process: ForwardProcess, u0: Tensor, levels: Tensor, draws: Tensor | None, rng: SampleNoise) -> Tensor:
    """The states of a map at some levels of each trajectory, without observation noise.

    A(t) u_0 + b(t) for maps that are observed through noise; for maps that are driven by noise, such as stochastic_heat, one
    path of the Markov process, step by step through all levels.

    Args:
        process: the map.
        u0: (B, C, H, W).
        levels: (B, N) int64.
        draws: the random numbers of a map that has some.
        rng: the noise of a path.

    Returns:
        (B, N, C, H, W).
    """
    b, n = levels.shape
    if isinstance(process, ObservedProcess) or draws is not None:
        bound = process.bind(None if draws is None else draws.repeat_interleave(n, 0))
        if n == 0:
            return u0.new_zeros(b, 0, *u0.shape[1:])
        states = bound.mean(u0.repeat_interleave(n, 0), process.times[levels.flatten()])
        output: Tensor = states.unflatten(0, (b, n)).to(u0)
        return output
    path = [u0]
    for s, t in zip(process.times[:-1], process.times[1:], strict=True):
        path.append(process.step(path[-1], s.expand(b), t.expand(b), rng.normal_like(u0)).to(u0))
    return torch.stack(path, 1)[torch.arange(b, device=u0.device)[:, None], levels]


def entropy(u: Tensor) -> Tensor:
    """-sum p ln p / ln n with p = u / sum u over the last three dimensions and n their size, between 0 and 1; u >= 0."""
    flat = u.clamp(min=0).flatten(-3)
    p = flat / flat.sum(-1, keepdim=True).clamp(min=1e-12)
    output: Tensor = torch.special.entr(p).sum(-1) / torch.log(torch.tensor(float(flat.shape[-1])))
    return output


def privileged_features(clean: Tensor) -> Tensor:
    """Maximum, mean and entropy of clean frames (B, N, C, H, W), as (B, N, PRIVILEGED_DIM)."""
    flat = clean.flatten(2)
    largest = flat.amax(2) if flat.shape[1] else flat.sum(2)
    return torch.stack([largest, flat.mean(2), entropy(clean)], dim=2)


def make_task(
    process: ForwardProcess, u0: Tensor, regime: Callable[[int, SampleNoise], Split], rng: SampleNoise, noise_std: float
) -> Task:
    """A task for each field.

    Args:
        process: the map.
        u0: (B, C, H, W).
        regime: which frames are context and which are targets.
        rng: everything random, in a fixed order.
        noise_std: of the noise on every frame.
    """
    split = regime(process.num_levels + 1, rng)
    levels = torch.cat([split.context, split.target], dim=1).to(process.times.device)
    draws = process.draw(rng)
    clean = clean_frames(process, u0, levels, draws, rng)
    values = clean + noise_std * rng.normal_like(clean)
    n, times = split.context.shape[1], process.times[levels]
    context_mask = split.context_mask.to(u0.device)
    context = Frames(times[:, :n], values[:, :n] * context_mask[:, :, None, None, None], context_mask)
    last, first = process.times[-1:].expand(len(u0)), process.times[:1].expand(len(u0))
    cond = process.bind(draws).cond(last, first)
    pixel_mask = None
    if split.sensors is not None:
        score = rng.uniform_like(clean[:, :n, :1].flatten(2))
        best = score.topk(min(split.sensors, score.shape[2]), dim=2).indices
        pixel_mask = torch.zeros_like(score, dtype=torch.bool).scatter(2, best, True).reshape(clean[:, :n, :1].shape)
    return Task(context, Frames.of(times[:, n:], values[:, n:]), clean[:, n:], privileged_features(clean), pixel_mask, cond)
