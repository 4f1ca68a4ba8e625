"""forward=blurring: blur and variance-preserving noise together, as in blurring diffusion models."""

import functools

from heatgen import check
from heatgen.basis import Cosine
from heatgen.forward.blur import sine
from heatgen.forward.composed import Composed
from heatgen.forward.noise_scale import preserving
from heatgen.forward.scale import log_snr


class Blurring(Composed):
    """u_t = a(t) d(t) u_0 + s(t) eps in the cosine basis, a^2 + s^2 = 1: scale=log_snr, blur=sine, noise_scale=preserving.

    Exactly u_0 at t = 0, where the published formula has a little noise already.

    Args:
        sigma_max: the widest blur, in pixels.
        d_min: what blur leaves of every mode, in [0, 1].
        log_snr_max: ln(a^2 / s^2) at the start, and minus that at the end. For the others see `heatgen.forward`.
    Source: Hoogeboom and Salimans 2023, section 4 and appendix A.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        num_levels: int = 100,
        sigma_max: float = 20.0,
        d_min: float = 0.001,
        log_snr_max: float = 10.0,
    ):
        sigma_max = check.number("forward.sigma_max", sigma_max, minimum=0)
        d_min = check.number("forward.d_min", d_min, minimum=0, maximum=1)
        log_snr_max = check.number("forward.log_snr_max", log_snr_max, above=0)
        scale = functools.partial(log_snr, log_snr_max=log_snr_max)
        blur = functools.partial(sine, sigma_max=sigma_max, d_min=d_min)
        super().__init__(shape, preserving, Cosine, num_levels, scale, blur, name="blurring")
