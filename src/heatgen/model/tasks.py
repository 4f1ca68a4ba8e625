"""Trajectories of a forward map, as neural processes see them: noisy frames at some of the levels, context and targets."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.process import ObservedProcess
from heatgen.frames import Frames
from heatgen.noise import SampleNoise

NOISE = 0.05  # of observations, for maps that do not say


@dataclass
class Task:
    """context and target: noisy frames, times on the map's clock; target_clean: the targets without noise, (B, M, C, H, W).

    seen: (B, N, 1, H, W) bool, the pixels of the context that are seen, None: all; told: the map's random numbers, or None;
    privileged: facts of each context and target frame, (B, N + M, 3): maximum, mean and entropy of the clean frame.
    """

    context: Frames
    target: Frames
    target_clean: Tensor
    privileged: Tensor
    pixel_mask: Tensor | None = None
    cond: Tensor | None = None


def observation_noise(process: Any, noise_std: float | None) -> float:
    """The deviation of the noise on every frame: noise_std, or the map's own sigma; ConfigError where it is 0."""
    std = getattr(process, "sigma", NOISE) if noise_std is None and isinstance(process, ObservedProcess) else noise_std
    std = NOISE if std is None else std
    if std == 0:
        raise ConfigError(
            f"Neural processes need noise on their frames, and forward={process.name} has none; raise forward.sigma, or set "
            "model.noise_std."
        )
    return check.number("model.noise_std", std, above=0)


def clean_frames(process: Any, u0: Tensor, numbers: Tensor, drawn: Tensor | None, noise: SampleNoise) -> Tensor:
    """The states of `process` at levels (B, N) of each trajectory, without observation noise, (B, N, C, H, W).

    A(t) u_0 + b(t) for maps that are seen through noise; for maps that are driven by noise, such as stochastic_heat, one
    path of the Markov process, step by step through all levels. drawn: the random numbers of a map that has some.
    """
    b, n = numbers.shape
    if isinstance(process, ObservedProcess) or drawn is not None:
        own = process.bind(None if drawn is None else drawn.repeat_interleave(n, 0))
        if n == 0:
            return u0.new_zeros(b, 0, *u0.shape[1:])
        states = own.mean(u0.repeat_interleave(n, 0), process.times[numbers.flatten()])
        return states.unflatten(0, (b, n)).to(u0)
    path = [u0]
    for s, t in zip(process.times[:-1], process.times[1:], strict=True):
        path.append(process.step(path[-1], s.expand(b), t.expand(b), noise.normal_like(u0)).to(u0))
    return torch.stack(path, 1)[torch.arange(b, device=u0.device)[:, None], numbers]


def entropy(u: Tensor) -> Tensor:
    """-sum p ln p / ln n with p = u / sum u over the last three dimensions and n their size, between 0 and 1; u >= 0."""
    flat = u.clamp(min=0).flatten(-3)
    p = flat / flat.sum(-1, keepdim=True).clamp(min=1e-12)
    return torch.special.entr(p).sum(-1) / torch.log(torch.tensor(float(flat.shape[-1])))


def privileged_facts(clean: Tensor) -> Tensor:
    """Maximum, mean and entropy of clean frames (B, N, C, H, W), as (B, N, 3)."""
    flat = clean.flatten(2)
    largest = flat.amax(2) if flat.shape[1] else flat.sum(2)
    return torch.stack([largest, flat.mean(2), entropy(clean)], dim=2)


def make_task(process: Any, u0: Tensor, regime: Any, noise: SampleNoise, noise_std: float) -> Task:
    """A task for each field u0, (B, C, H, W); everything random comes from `noise`, in a fixed order."""
    split = regime(process.num_levels + 1, noise)
    numbers = torch.cat([split.context, split.target], dim=1).to(process.times.device)
    drawn = process.draw(noise)
    clean = clean_frames(process, u0, numbers, drawn, noise)
    values = clean + noise_std * noise.normal_like(clean)
    n, times = split.context.shape[1], process.times[numbers]
    context_mask = split.context_mask.to(u0.device)
    context = Frames(times[:, :n], values[:, :n] * context_mask[:, :, None, None, None], context_mask)
    last, first = process.times[-1:].expand(len(u0)), process.times[:1].expand(len(u0))
    cond = process.bind(drawn).cond(last, first)
    pixel_mask = None
    if split.sensors is not None:
        score = noise.uniform_like(clean[:, :n, :1].flatten(2))
        best = score.topk(min(split.sensors, score.shape[2]), dim=2).indices
        pixel_mask = torch.zeros_like(score, dtype=torch.bool).scatter(2, best, True).reshape(clean[:, :n, :1].shape)
    return Task(context, Frames.of(times[:, n:], values[:, n:]), clean[:, n:], privileged_facts(clean), pixel_mask, cond)
