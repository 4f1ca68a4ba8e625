"""At which times a sampler takes its steps: the levels of the map, or any other number of times."""

from dataclasses import dataclass

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.noise_level import noise_to_signal, time_at, time_where
from heatgen.forward.process import MOST_LEVELS, ForwardProcess
from heatgen.model.preconditioning import Preconditioning

LEVEL = "sampler.spacing=level"  # what is possible always
LARGEST = 40.0  # noise / signal that counts: 160 times the deviation of a pixel, 80 for data in [-1, 1]


@dataclass(frozen=True)
class Grid:
    """N steps from t_K down to 0, whatever K the model was trained with. Their times but for t_K and 0, i = 1 .. N - 1:

        level      levels K i / N, linear between neighbours, or the nearest levels where these alone are known
        uniform    t_K i / N
        rho        noise / signal (S^(1/rho) + i / (N - 1) (s^(1/rho) - S^(1/rho)))^rho: S at t_K, at most 40; s at level 1
        variance   i / (N - 1) of what the map removes, from level 1 to t_K: steps that give back equal parts of the variance

    Args:
        steps: N; None: K.
        spacing: level, uniform, rho or variance.
        rho: of spacing=rho.

    Raises:
        ConfigError: a value is out of range, or nothing uses it.

    Source: Karras et al. 2022, eq. 5; `Preconditioning.removed`.
    """

    steps: int | None = None
    spacing: str = "level"
    rho: float = 7.0

    def __post_init__(self) -> None:
        if self.steps is not None:
            object.__setattr__(self, "steps", check.integer("sampler.steps", self.steps, 1, MOST_LEVELS))
        check.choice("sampler.spacing", self.spacing, ("level", "uniform", "rho", "variance"))
        if check.number("sampler.rho", self.rho, above=0) != Grid.rho and self.spacing != "rho":
            raise ConfigError(f"sampler.rho={self.rho:g} is for sampler.spacing=rho; choose that too, or remove it.")

    def times(
        self, process: ForwardProcess, any_time: bool, model: str = "", known: Preconditioning | None = None
    ) -> Tensor:
        """Its times for a map, (N + 1,) float64, strictly ascending from 0 to t_K; the map's own where they are its levels.

        `known` is what variance needs: the second moments that the model has measured.
        ConfigError where the map, or a model that is not of `any_time`, has no such times, or some of them coincide.
        """
        last, key, own = process.num_levels, f"sampler.spacing={self.spacing}", process.times
        steps = self.steps or last
        i = torch.arange(steps + 1, device=own.device)
        if self.spacing == "level" and steps == last:
            return own
        if not (any_time and process.is_diagonal):
            whose = f"forward={process.name}" if any_time else f"model={model}"
            if self.spacing != "level":
                raise ConfigError(f"{key} needs times between the levels, and {whose} has none; use sampler.spacing=level.")
            if steps > last:
                raise ConfigError(
                    f"sampler.steps={steps} must be at most K = {last}, as {whose} is known at its levels; null takes all."
                )
            return own[(2 * i * last + steps) // (2 * steps)]
        if self.spacing == "level":
            times = process.time_of(i.double() * last / steps)
        elif self.spacing == "uniform":
            times = own[-1] * (i.double() / steps)
        elif process.has_random_gain:
            raise ConfigError(
                f"{key} needs one noise for all, and forward={process.name} is drawn at random; use sampler.spacing=level."
            )
        else:
            part = i[1 : steps - 1].double() / max(steps - 1, 1)
            ends = torch.stack([own[1], own[-1]])
            if self.spacing == "variance":
                if known is None:
                    raise ConfigError(
                        f"{key} needs the variances of the data, which this model={model} has not measured; use {LEVEL}."
                    )
                low, high = known.removed(ends)
                inner = time_where(process, known.removed, torch.lerp(low, high, part), "removed variance", key, LEVEL)
            else:
                low, high = noise_to_signal(process, ends).clamp(max=LARGEST) ** (1 / self.rho)
                inner = time_at(process, torch.lerp(low, high, part) ** self.rho, key, LEVEL)
            times = torch.cat([own[:1], own[1:2], inner, own[-1:]] if steps > 1 else [own[:1], own[-1:]])
        if not (times.float().diff() > 0).all():
            raise ConfigError(f"sampler.steps={steps} {key} gives times that coincide in float32; use fewer sampler.steps.")
        return times
