"""regime=sensors: whole frames from a few pixels of others."""

from dataclasses import dataclass

from heatgen.regime.random import Random


@dataclass(frozen=True)
class Sensors(Random):
    """As regime=random, but few random pixels of a context frame are observed."""

    sensors: int | None = 8
