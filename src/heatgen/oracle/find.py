"""Which exact answers there are for a data set under a map."""

from typing import Any

from heatgen.oracle.gaussian import GaussianOracle
from heatgen.oracle.mixture import MixtureOracle


def exact_answers(process: Any, spec: Any) -> GaussianOracle | MixtureOracle | None:
    """The oracle of Gaussian data or of a mixture of Gaussians; None for other data, and for maps drawn at random."""
    if process.random:
        return None
    if spec.spectrum is not None:
        return GaussianOracle(process, spec)
    return MixtureOracle(process, spec) if spec.mixture is not None else None
