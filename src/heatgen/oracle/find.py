"""Which exact answers there are for a data set under a map."""

from heatgen.check import ConfigError
from heatgen.data.module import DataSpec
from heatgen.forward.process import ForwardProcess, ObservedProcess
from heatgen.oracle.gaussian import GaussianOracle
from heatgen.oracle.hypotheses import HypothesesTrajectory
from heatgen.oracle.mixture import MixtureOracle
from heatgen.oracle.trajectory import GaussianTrajectory, Trajectory

Oracle = GaussianOracle | MixtureOracle


def exact_answers(process: ForwardProcess, spec: DataSpec) -> Oracle | None:
    """The oracle of Gaussian data or of a mixture of Gaussians; None for other data, and for maps drawn at random.

    Args:
        process: the map.
        spec: with the law to rest on, `law_of(data).spec`: what the data set asserts, where its samples agree.
    """
    return None if process.is_random else answers_given(process, spec)


def answers_given(process: ForwardProcess, spec: DataSpec) -> Oracle | None:
    """`exact_answers` for a map that is not drawn at random, or that is bound to one draw."""
    if spec.spectrum is not None:
        return GaussianOracle(process, spec)
    return MixtureOracle(process, spec) if spec.mixture is not None else None


def exact_trajectories(process: ForwardProcess, spec: DataSpec, noise_std: float) -> Trajectory:
    """The exact prediction of frames from frames, seen through white noise.

    For Gaussian data, and for a single hot spot under a map that is known, or one of finitely many and withheld.

    Args:
        process: the map between the frames.
        spec: with the law to rest on, `law_of(data).spec`.
        noise_std: the deviation of the noise of every frame.
    Raises:
        ConfigError: for everything else, with the reason.
    """
    if not isinstance(process, ObservedProcess) and (process.bind(None).std(process.times[-1:]) > 0).any():
        raise ConfigError(f"forward={process.name} is driven by noise between frames; forward=neumann_heat or heat is not.")
    if spec.spots is not None and spec.spots.spots == (1, 1):
        outcomes = process.outcomes()
        if process.is_random and (outcomes is None or not process.withholds_cond):
            raise ConfigError(
                f"forward={process.name} is drawn at random and its draw is given to the network; use a map with "
                "finitely many draws and forward.conditional=false, such as forward=neumann_heat."
            )
        maps = [process] if outcomes is None else [process.bind(d) for d in outcomes.split(1)]
        fields, _, weights = spec.spots.templates()
        return HypothesesTrajectory(fields[:, None], weights, spec.spots.amplitudes, maps, noise_std)
    if process.is_random:
        raise ConfigError(f"forward={process.name} is drawn at random.")
    if spec.spectrum is None:
        raise ConfigError("the law of the data is unknown; it is known for data=grf and data=hot_spots with one spot.")
    return GaussianTrajectory(process, spec, noise_std)
