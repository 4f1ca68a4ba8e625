"""Files of moments of features, as clean-fid keeps them: .npz with the mean `mu` and the covariance `sigma`."""

from pathlib import Path

import numpy as np
import torch
from numpy.lib.npyio import NpzFile
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
    wanted = {"mu": (width,), "sigma": (width, width)}
    try:
        with np.load(path, allow_pickle=False) as file:
            if not isinstance(file, NpzFile):
                raise ValueError("it is one array")
            shapes = {key: shape_of(file, key) for key in wanted if key in file}
            fits = all(shapes.get(key, shape) == shape for key, shape in wanted.items())
            found = {key: file[key] for key in shapes} if fits else {}  # what is larger is not read
    except Exception as error:  # whatever its bytes make of NumPy
        reason = str(error).split("\n")[0].rstrip(".") or type(error).__name__
        raise ConfigError(f"metric.reference={path} cannot be read ({reason}); {fix}.") from error
    if missing := [key for key in wanted if key not in shapes]:
        raise ConfigError(f"metric.reference={path} has no {missing[0]}; {fix}.")
    if not fits:
        sizes = f"mu {list(shapes['mu'])} and sigma {list(shapes['sigma'])}"
        raise ConfigError(f"metric.reference={path} has {sizes}, and {name} gives {width} features; {fix}.")
    if any(array.dtype.kind not in "fiu" for array in found.values()):
        raise ConfigError(f"metric.reference={path} holds something else than real numbers; {fix}.")
    mu, sigma = (torch.from_numpy(found[key].astype(np.float64)) for key in wanted)
    if not (mu.isfinite().all() and sigma.isfinite().all()):
        raise ConfigError(f"metric.reference={path} holds NaN or inf; {fix}.")
    scale = ROUNDING * sigma.diagonal().abs().max()
    if (sigma - sigma.mT).abs().max() > scale:
        raise ConfigError(f"metric.reference={path} has a sigma that is not symmetric; {fix}.")
    sigma = (sigma + sigma.mT) / 2
    if torch.linalg.eigvalsh(sigma)[0] < -scale:
        raise ConfigError(f"metric.reference={path} has a sigma with a negative eigenvalue, so it is no covariance; {fix}.")
    return mu, sigma


def shape_of(file: NpzFile, key: str) -> tuple[int, ...]:
    """The shape that an array of a file claims, which its bytes may not bear out; ValueError for none, or for objects."""
    assert file.zip is not None  # until it is closed
    with file.zip.open(f"{key}.npy") as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(member)
        if kind.hasobject:
            raise ValueError(f"{key} holds pickled objects, which are not opened")
        return tuple(shape)
