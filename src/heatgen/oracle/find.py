"""Which exact answers there are for a data set under a map."""

from typing import Any

from heatgen.check import ConfigError
from heatgen.forward.process import ObservedProcess
from heatgen.oracle.gaussian import GaussianOracle
from heatgen.oracle.hypotheses import HypothesesTrajectory
from heatgen.oracle.mixture import MixtureOracle
from heatgen.oracle.trajectory import GaussianTrajectory


def exact_answers(process: Any, spec: Any) -> GaussianOracle | MixtureOracle | None:
    """The oracle of Gaussian data or of a mixture of Gaussians; None for other data, and for maps drawn at random."""
    if process.is_random:
        return None
    if spec.spectrum is not None:
        return GaussianOracle(process, spec)
    return MixtureOracle(process, spec) if spec.mixture is not None else None


def exact_trajectories(process: Any, spec: Any, noise_std: float) -> GaussianTrajectory | HypothesesTrajectory:
    """The exact prediction of frames from frames, seen through white noise of this deviation.

    For Gaussian data, and for a single hot spot under a map that is known or has a grid of diffusivities that the network is
    not told. ConfigError, with the reason, for everything else.
    """
    if not isinstance(process, ObservedProcess) and (process.bind(None).std(process.times[-1:]) > 0).any():
        raise ConfigError(f"forward={process.name} is driven by noise between frames; forward=neumann_heat or heat is not.")
    if getattr(spec, "spots", None) is not None and tuple(spec.spots.spots) == (1, 1):
        if process.is_random and not (process.withholds_cond and hasattr(process, "diffusivity_grid")):
            raise ConfigError(
                f"forward={process.name} is drawn at random and told; forward.conditional=false has an exact answer."
            )
        maps = [process.bind(d.reshape(1, 1)) for d in process.diffusivity_grid] if process.is_random else [process]
        fields, _, weights = spec.spots.templates()
        return HypothesesTrajectory(fields[:, None], weights, spec.spots.amplitudes, maps, noise_std)
    if process.is_random:
        raise ConfigError(f"forward={process.name} is drawn at random.")
    if spec.spectrum is None:
        raise ConfigError("the law of the data is not known; it is of data=grf and data=hot_spots with one spot.")
    return GaussianTrajectory(process, spec, noise_std)
