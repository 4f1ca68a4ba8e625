"""Where samples start: training images seen through the map up to its last level, or such states that were kept."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from heatgen.data.module import DataModule
from heatgen.model.module import Method
from heatgen.noise import SampleNoise


@dataclass(frozen=True)
class Start:
    """model: with the random part of its map drawn; state: u_K, (B, C, H, W); rng: the noise of the steps that follow."""

    model: Method
    state: Tensor
    rng: SampleNoise


def start(
    model: Method, data: DataModule, indices: Sequence[int], seed: int, device: torch.device | str, key: str = "sample"
) -> Start:
    """What sampling needs to begin: A(t_K) u_0 + b(t_K) + initial_std eps of training images u_0, for each sample.

    Args:
        model: on `device`.
        data: whose training images are taken, or whose `states`, A(t_K) u_0 + b(t_K), in place of them.
        indices: B sample numbers; a sample depends on (seed, key, its own number) alone.
        seed: of the choice of images and of all noise.
        device: where the states are to be.
        key: what the samples are for.
    """
    rng = SampleNoise(indices, seed, key)
    bound = model.bound(rng)
    if data.states is not None:
        mean = data.states[data.prior_order(indices, seed)].to(device)
        return Start(bound, bound.initial_draw(mean, rng), rng)
    u0 = data.prior_images(indices, seed).to(device)
    return Start(bound, bound.initial_state(u0, rng), rng)
