"""regime=retrodict: the past from the future, the inverse problem."""

import dataclasses
from dataclasses import dataclass

from heatgen.noise import SampleNoise
from heatgen.regime.split import Regime, Split, in_order


@dataclass(frozen=True)
class Retrodict(Regime):
    """Random frames, given context[0] .. context[1] random ones that are all later."""

    def split(self, num_frames: int, rng: SampleNoise) -> Split:
        split = in_order(self, num_frames, rng)  # of time reversed
        last = num_frames - 1
        return dataclasses.replace(split, context=last - split.context, target=last - split.target)
