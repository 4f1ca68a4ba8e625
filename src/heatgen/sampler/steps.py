"""The steps that samplers take from level K down to 0."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from heatgen import check
from heatgen.noise import Noise
from heatgen.sampler.interface import ScoreModel

STEPS = ("physics", "euler")


def steps(times: Tensor, substeps: int, batch: int) -> Iterator[tuple[int | None, Tensor, Tensor]]:
    """The steps from the last of the times down to the first.

    Args:
        times: (K + 1,) ascending.
        substeps: equal steps from one level to the next.
        batch: B.

    Yields:
        (k, t, s) of each step from t down to s, (B,) each; k is the level of s, None between levels.

    Raises:
        ConfigError: substeps is not at least 1.
    """
    check.integer("sampler.substeps", substeps, minimum=1)
    for k in range(len(times) - 1, 0, -1):
        grid = torch.lerp(times[k], times[k - 1], torch.linspace(0, 1, substeps + 1, dtype=times.dtype, device=times.device))
        for i in range(substeps):
            yield (k - 1 if i == substeps - 1 else None), grid[i].expand(batch), grid[i + 1].expand(batch)


def step_of(model: ScoreModel, step: str) -> Callable[[Tensor, Tensor, Tensor, float], Tensor]:
    """What takes (u, t, s, factor) from t down to s: the model's physics_step or euler_step. ConfigError for another."""
    return model.physics_step if check.choice("sampler.step", step, STEPS) == "physics" else model.euler_step


def draw(u: Tensor, rng: Noise | None) -> Tensor:
    """White noise like u, from `rng` or torch's own generator."""
    return torch.randn_like(u) if rng is None else rng.normal_like(u)
