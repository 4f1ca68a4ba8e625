"""regime=forecast: the future from the past."""

from collections.abc import Sequence

from heatgen.noise import SampleNoise
from heatgen.regime.split import Split, in_order


def forecast(count: int, noise: SampleNoise, context: Sequence[int] = (1, 5), targets: int = 8) -> Split:
    """`targets` random frames of `count`, given context[0] .. context[1] random ones that are all earlier.

    ConfigError where there are fewer frames than they ask for.
    """
    return in_order(count, noise, context, targets)
