"""regime=forecast: the future from the past."""

from dataclasses import dataclass

from heatgen.noise import SampleNoise
from heatgen.regime.split import Regime, Split, in_order


@dataclass(frozen=True)
class Forecast(Regime):
    """Random frames, given context[0] .. context[1] random ones that are all earlier."""

    def split(self, num_frames: int, rng: SampleNoise) -> Split:
        return in_order(self, num_frames, rng)
