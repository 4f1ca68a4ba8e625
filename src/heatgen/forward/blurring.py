"""forward=blurring: blur and variance-preserving noise together, as in blurring diffusion models."""

from heatgen import check
from heatgen.basis import Cosine
from heatgen.forward.blur import Sine
from heatgen.forward.composed import Composed
from heatgen.forward.noise_scale import Preserving
from heatgen.forward.scale import LogSnr


class Blurring(Composed):
    """u_t = a(t) d(t) u_0 + s(t) eps in the cosine basis, a^2 + s^2 = 1: `Composed` of LogSnr, Sine and Preserving.

    Exactly u_0 at t = 0, where the published formula has a little noise already.

    Args:
        shape: (C, H, W).
        num_levels: K, at least 1.
        sigma_max: the widest blur, in pixels.
        d_min: what blur leaves of every mode, in [0, 1].
        log_snr_max: ln(a^2 / s^2) at the start, and minus that at the end.
    Raises:
        ConfigError: for values out of range.
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
        check.number("forward.sigma_max", sigma_max, minimum=0)
        check.number("forward.d_min", d_min, minimum=0, maximum=1)
        check.number("forward.log_snr_max", log_snr_max, above=0)
        parts = LogSnr(log_snr_max), Sine(d_min, sigma_max)
        super().__init__(shape, Preserving(), Cosine, num_levels, *parts, name="blurring")
