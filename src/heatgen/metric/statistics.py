"""Files of moments of features, as clean-fid keeps them: .npz with the mean `mu` and the covariance `sigma`."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from heatgen.check import ConfigError

ROUNDING = 1e-4  # of the largest variance: how far from symmetric, or below 0, float32 sums can make a covariance


def moments_of_file(path: Path, width: int, name: str) -> tuple[Tensor, Tensor]:
    """mu (F,) and sigma (F, F) of a file, float64.

    Args:
        path: the file.
        width: F, of the features that are compared with it.
        name: of what gives them.

    Raises:
        ConfigError: there is no such file, or it holds anything else: other sizes, numbers that are not finite, a sigma that
            is not symmetric or has a negative eigenvalue.
    """
    fix = f"give clean-fid's statistics, mu ({width},) and sigma ({width}, {width}), or a split: train, val or test"
    if not path.is_file():
        raise ConfigError(f"metric.reference={path} is not a file; {fix}.")
    try:
        with np.load(path, allow_pickle=False) as file:
            found = {key: file[key] for key in ("mu", "sigma") if key in file}
    except Exception as error:  # whatever its bytes make of NumPy
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise ConfigError(f"metric.reference={path} cannot be read ({reason}); {fix}.") from error
    if missing := [key for key in ("mu", "sigma") if key not in found]:
        raise ConfigError(f"metric.reference={path} has no {missing[0]}; {fix}.")
    if any(array.dtype.kind not in "fiu" for array in found.values()):
        raise ConfigError(f"metric.reference={path} holds something else than real numbers; {fix}.")
    mu, sigma = (torch.from_numpy(found[key].astype(np.float64)) for key in ("mu", "sigma"))
    if tuple(mu.shape) != (width,) or tuple(sigma.shape) != (width, width):
        sizes = f"mu {list(mu.shape)} and sigma {list(sigma.shape)}"
        raise ConfigError(f"metric.reference={path} has {sizes}, and {name} gives {width} features; {fix}.")
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise ConfigError(f"metric.reference={path} holds NaN or inf; {fix}.")
    scale = ROUNDING * sigma.diagonal().abs().max()
    if (sigma - sigma.mT).abs().max() > scale:
        raise ConfigError(f"metric.reference={path} has a sigma that is not symmetric; {fix}.")
    sigma = (sigma + sigma.mT) / 2
    if torch.linalg.eigvalsh(sigma)[0] < -scale:
        raise ConfigError(f"metric.reference={path} has a sigma with a negative eigenvalue, so it is no covariance; {fix}.")
    return mu, sigma
