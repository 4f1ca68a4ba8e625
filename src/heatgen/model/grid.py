"""At which times a sampler takes its steps: the levels of the map, or any other number of times."""

from dataclasses import dataclass

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.noise_level import noise_to_signal, time_at
from heatgen.forward.process import MOST_LEVELS, ForwardProcess

LARGEST = 40.0  # noise / signal that counts: 160 times the deviation of a pixel, 80 for data in [-1, 1]


@dataclass(frozen=True)
class Grid:
    """N steps from t_K down to 0, whatever K the model was trained with. Their times but for t_K and 0, i = 1 .. N - 1:

        level      levels K i / N, linear between neighbours, or the nearest levels where these alone are known
        uniform    t_K i / N
        rho        noise / signal (S^(1/rho) + i / (N - 1) (s^(1/rho) - S^(1/rho)))^rho: S at t_K, at most 40; s at level 1

    Args:
        steps: N; None: K.
        spacing: see above.
        rho: of spacing=rho.

    Raises:
        ConfigError: a value is out of range, or nothing uses it.

    Source: Karras et al. 2022, eq. 5.
    """

    steps: int | None = None
    spacing: str = "level"
    rho: float = 7.0

    def __post_init__(self) -> None:
        if self.steps is not None:
            object.__setattr__(self, "steps", check.integer("sampler.steps", self.steps, 1, MOST_LEVELS))
        check.choice("sampler.spacing", self.spacing, ("level", "uniform", "rho"))
        if check.number("sampler.rho", self.rho, above=0) != Grid.rho and self.spacing != "rho":
            raise ConfigError(f"sampler.rho={self.rho:g} is for sampler.spacing=rho; choose that too, or remove it.")

    def times(self, process: ForwardProcess, any_time: bool, model: str = "") -> Tensor:
        """Its times for a map, (N + 1,) float64, strictly ascending from 0 to t_K; the map's own where they are its levels.

        Args:
            process: the map.
            any_time: whether the model is defined between the levels.
            model: its name, for messages.

        Raises:
            ConfigError: the map or the model has no such times, or some of them coincide.
        """
        last, key = process.num_levels, f"sampler.spacing={self.spacing}"
        steps = self.steps or last
        i = torch.arange(steps + 1, device=process.times.device)
        if self.spacing == "level" and steps == last:
            return process.times
        if not (any_time and process.is_diagonal):
            whose = f"forward={process.name}" if any_time else f"model={model}"
            if self.spacing != "level":
                raise ConfigError(f"{key} needs times between the levels, and {whose} has none; use sampler.spacing=level.")
            if steps > last:
                raise ConfigError(f"sampler.steps={steps} must be at most K = {last}, as {whose} is of its levels alone.")
            return process.times[(2 * i * last + steps) // (2 * steps)]
        if self.spacing == "level":
            times = process.time_of(i.double() * last / steps)
        else:
            times = process.times[-1] * (i.double() / steps) if self.spacing == "uniform" else self._by_ratio(process)
        if not (times.float().diff() > 0).all():
            raise ConfigError(f"sampler.steps={steps} {key} gives times that coincide in float32; use fewer sampler.steps.")
        return times

    def _by_ratio(self, process: ForwardProcess) -> Tensor:
        steps, own = self.steps or process.num_levels, process.times
        if process.is_random and not process.random_noise_only:
            raise ConfigError(f"sampler.spacing=rho needs one noise for all, and forward={process.name} is drawn at random.")
        low, high = noise_to_signal(process, torch.stack([own[1], own[-1]])).clamp(max=LARGEST) ** (1 / self.rho)
        ratios = torch.lerp(high, low, torch.linspace(0, 1, steps, dtype=low.dtype, device=low.device)) ** self.rho
        inner = time_at(process, ratios[1:-1].flip(0), "sampler.spacing=rho")
        return torch.cat([own[:1], own[1:2], inner, own[-1:]] if steps > 1 else [own[:1], own[-1:]])
