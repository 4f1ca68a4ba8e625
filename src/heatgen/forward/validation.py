"""The checks that a forward map has to pass before anything is trained on it."""

import warnings
from typing import TYPE_CHECKING

from heatgen.check import ConfigError
from heatgen.noise import SampleNoise

if TYPE_CHECKING:
    from heatgen.forward.process import ForwardProcess

LOSSLESS = 0.9  # the share of coefficients above the noise at level K from which `validate` warns


def validate(process: "ForwardProcess") -> None:
    """Check that A(0) = I, b(0) = 0, the levels ascend from 0 and every level is finite.

    Warns where level K destroys no information: then samples are training images encoded and decoded again.

    Raises:
        ConfigError: names the map and what it breaks.
    """
    name, times, K = process.name, process.times, process.num_levels
    if times[0] != 0 or (times.diff() <= 0).any():
        raise ConfigError(f"The levels of forward={name} must ascend strictly from 0.")
    probe = SampleNoise([0], "probe").uniform(*process.shape, device=times.device)
    overflow = None  # the first level whose square overflows, as it would in a loss
    for k, t in enumerate(times.split(1)):
        state = process.mean(probe, t)
        if not (state.isfinite().all() and process.std(t).isfinite().all()):
            raise ConfigError(f"forward={name} is not finite at level {k} of {K}; use fewer levels.")
        if k == 0 and (state - probe).abs().max() > 1e-5:
            raise ConfigError(f"forward={name} has A(0) != I: the network would never see the data.")
        if overflow is None and not state.square().sum().isfinite():
            overflow = k
    if overflow is not None:
        raise ConfigError(
            f"forward={name} is so large at level {overflow} of {K} that its square overflows; use fewer levels."
        )
    kept = process.share_above_noise(process.times[-1:])
    if kept > LOSSLESS:
        share = "every coefficient" if kept == 1 else f"{kept:.0%} of all coefficients"
        message = f"forward={name} keeps {share} above the noise at its last level: "
        warnings.warn(message + "samples will be copies of training images.", stacklevel=3)
