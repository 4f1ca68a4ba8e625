"""forward/noise_scale: the noise of all coefficients alike, noise_scale(t); noise_scale(0) = 0.

Papers have data in [-1, 1], here they are in [0, 1]: factor=0.5 gives papers' ratios of signal to noise.
"""

import functools

import torch
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError
from heatgen.forward.composed import Composed

checked = functools.partial(check.number, "forward.noise_scale.factor", above=0, maximum=1e6)  # the option `factor`


def preserving(t: Tensor, process: Composed, of: str = "scale", factor: float = 1.0) -> Tensor:
    """factor sqrt(1 - x^2), x the scale or, with of=gain, that of each coefficient: variance 1 stays 1 with factor 1.

    Source: Ho et al. 2020, eq. 4; of=gain: Lee et al. 2022, "Progressive Deblurring of Diffusion Models".
    """
    gain = check.choice("forward.noise_scale.of", of, ("scale", "gain")) == "gain"
    if process.scale is None and (process.blur is None or not gain):
        raise ConfigError(
            "forward/noise_scale=preserving needs a scale; choose forward/scale, or another forward/noise_scale."
        )
    kept = process.product(t.double().flatten(), process.scale, process.blur if gain else None)
    return checked(factor) * (1 - kept**2).clamp(min=0).sqrt().to(t)  # in float64: float32 loses it near t = 0


def flow(t: Tensor, process: Composed, factor: float = 1.0) -> Tensor:
    """factor t, the noise of flow matching (Lipman et al. 2023, eq. 20)."""
    return checked(factor) * t


def exploding(t: Tensor, process: Composed) -> Tensor:
    """sqrt(2 t), on the clock t = sigma^2 / 2 of a blur (Song et al. 2021, eq. 9)."""
    return (2 * t).sqrt()


def lognormal(
    t: Tensor, process: Composed, mean: float = -1.2, deviation: float = 1.2, share: float = 0.93, factor: float = 1.0
) -> Tensor:
    """factor exp(mean + deviation Phi^-1(share t)): for uniform t, ln of the noise is normal, but for its largest values.

    Source: Teng et al. 2024 (Relay Diffusion).
    """
    mean = check.number("forward.noise_scale.mean", mean, minimum=-10, maximum=10)
    deviation = check.number("forward.noise_scale.deviation", deviation, above=0, maximum=10)
    share = check.number("forward.noise_scale.share", share, above=0, maximum=0.999999)
    quantile: Tensor = torch.special.ndtri(share * t)
    return checked(factor) * (mean + deviation * quantile).exp()
