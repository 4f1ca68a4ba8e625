"""regime=retrodict: the past from the future, the inverse problem."""

import dataclasses
from collections.abc import Sequence

from heatgen.noise import SampleNoise
from heatgen.regime.split import Split, in_order


def retrodict(count: int, noise: SampleNoise, context: Sequence[int] = (1, 5), targets: int = 8) -> Split:
    """`targets` random frames of `count`, given context[0] .. context[1] random ones that are all later.

    ConfigError where there are fewer frames than they ask for.
    """
    split = in_order(count, noise, context, targets)  # of time reversed
    return dataclasses.replace(split, context=count - 1 - split.context, target=count - 1 - split.target)
