"""heatgen: heat-equation and other linear-degradation generative models, under one law u_t = A(t) u_0 + b(t) + L(t) eps.

    run = heatgen.train(model="ihd", forward="heat", data=images)    # images: a tensor, an array, a Dataset, or digits
    run = heatgen.load("runs/ihd-heat-digits/2026-01-01_12-00-00")   # a trained run, ready to sample
    run.sample(n=16, seed=0)                                         # pictures in a notebook; .tensor is (16, C, H, W)
    run.reconstruct(u)                                               # clean fields of degraded ones
    run.evaluate("elbo", n=100)                                      # values with errors, units and notes
    cfg = heatgen.compose("model=ihd", "forward=heat", "data=digits")  # a config of the command line

torch takes seconds to import, so these are imported where they are used.
"""

import importlib
import sys
from typing import TYPE_CHECKING

if sys.argv[0] == "-m" and any(word.startswith("heatgen") for word in sys.orig_argv):  # python -m heatgen...
    from heatgen.runtime import signals

    signals.obey()  # also while torch is imported

if TYPE_CHECKING:
    from heatgen.app.api import load as load
    from heatgen.app.api import train as train
    from heatgen.app.compose import compose as compose
    from heatgen.app.run import Run as Run

__version__ = "0.2.0"
__all__ = ["Run", "__version__", "compose", "load", "train"]
HOMES = {"Run": "heatgen.app.run", "compose": "heatgen.app.compose", "load": "heatgen.app.api", "train": "heatgen.app.api"}


def __getattr__(name: str) -> object:
    """One of the names above, imported at its first use."""
    if name not in HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
