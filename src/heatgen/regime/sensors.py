"""regime=sensors: whole frames from a few pixels of others."""

import dataclasses
from collections.abc import Sequence

from heatgen import check
from heatgen.noise import SampleNoise
from heatgen.regime.random import random
from heatgen.regime.split import Split


def sensors(count: int, noise: SampleNoise, context: Sequence[int] = (1, 5), targets: int = 8, number: int = 8) -> Split:
    """As regime=random, but of each context frame `number` random pixels are seen. ConfigError for too few frames."""
    number = check.integer("regime.number", number, minimum=1)
    return dataclasses.replace(random(count, noise, context, targets), sensors=number)
