"""How often each time is trained, for maps that are known between their levels."""

import math

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.noise_level import noise_to_signal, time_at
from heatgen.forward.process import ForwardProcess
from heatgen.noise import SampleNoise

DENSITIES = {"uniform": (0.0, 0.0), "lognormal": (-1.2 - math.log(2), 1.2), "logit_normal": (0.0, 1.0)}  # mean, deviation
FIRST = 2.0**-40  # of the time of level 1: below it no time is drawn
KNOTS, WIDEST = 513, 6.4  # of the table of times, evenly spaced in standard deviations
AT_ONCE = 32  # of them that are solved for together
FARTHEST = 100.0  # from 0 that a mean of x may be, as exp(x) is computed
RARE = 1e-6  # the least share of a density that lies within the map


class TimeDensity:
    """Times with x(t) normal on the range of the map: x = ln sigma (lognormal), sigma = rms(L) / max A; x = logit(t / t_K).

    ConfigError where the map is known at its levels alone, or its sigma does not rise, or has next to none of the density.

    Args:
        process: the map.
        kind: lognormal | logit_normal.
        mean, std: of x; None: of lognormal -1.2 - ln 2 and 1.2, those of Karras et al. 2022 for data in [0, 1], not [-1, 1];
            of logit_normal 0 and 1, those of Esser et al. 2024 (of Li and He 2025 0.8 and 0.8, on this clock).
    """

    def __init__(self, process: ForwardProcess, kind: str, mean: float | None, std: float | None):
        self.process, self.kind, self.key = process, kind, f"model.time_density={kind}"
        if kind == "uniform":
            raise ConfigError(
                "model.time_density=uniform has no density_mean and density_std; use lognormal, or remove them."
            )
        if not process.is_diagonal:
            raise ConfigError(f"{self.key} needs times between levels, which forward={process.name} has not; use uniform.")
        far = {"minimum": -FARTHEST, "maximum": FARTHEST}
        self.mean = DENSITIES[kind][0] if mean is None else check.number("model.density_mean", mean, **far)
        self.std = DENSITIES[kind][1] if std is None else check.number("model.density_std", std, above=0)
        ends = torch.stack([FIRST * process.times[1], process.times[-1]])
        x = (ends / process.times[-1]).logit()
        if kind == "lognormal":
            time_at(process, torch.ones_like(ends), self.key, "uniform")  # refuses a map whose sigma does not rise
            x = noise_to_signal(process, ends).log()
        self.ends = (x.cpu() - self.mean) / self.std
        self.low, self.high = torch.special.ndtr(self.ends).tolist()
        if self.high - self.low < RARE:
            raise ConfigError(
                f"model.density_mean={self.mean:g} and density_std={self.std:g} leave next to no times to forward="
                f"{process.name}, whose {'ln sigma' if kind == 'lognormal' else 'logit of t'} is {x[0]:.3g} to {x[1]:.3g}."
            )
        self.table: Tensor | None = None  # ln t at KNOTS places

    def draw(self, rng: SampleNoise) -> Tensor:
        """A time for each sample, (B,) float64, never 0: by the inverse CDF, of one uniform number."""
        times = self.process.times
        share = self.high - (self.high - self.low) * rng.uniform(1, dtype=torch.float64)[:, 0].to(times)
        z = torch.special.ndtri(share).clamp(-WIDEST, WIDEST)
        if self.kind == "logit_normal":
            return torch.sigmoid(self.mean + self.std * z) * times[-1]
        first, last = self.ends.clamp(-WIDEST, WIDEST).tolist()
        if self.table is None or self.table.device != times.device:  # so that a training step solves nothing
            x = self.mean + self.std * torch.linspace(first, last, KNOTS, dtype=torch.float64, device=times.device)
            self.table = torch.cat(
                [time_at(self.process, part, self.key, "uniform") for part in x.exp().split(AT_ONCE)]
            ).log()
        place = ((z - first) / (last - first)).clamp(0, 1) * (KNOTS - 1)
        below = place.long().clamp(max=KNOTS - 2)
        return torch.lerp(self.table[below], self.table[below + 1], place - below).exp()
