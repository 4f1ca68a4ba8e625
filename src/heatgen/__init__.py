"""heatgen: heat-equation and other linear-degradation generative models, under one law u_t = A(t) u_0 + b(t) + L(t) eps.

    run = heatgen.load("runs/ihd-heat-digits/2026-01-01_12-00-00")   # a trained run, ready to sample
    samples = heatgen.sample(run, n=16, seed=0)                      # (16, C, H, W)
    cfg = heatgen.compose("model=ihd", "forward=heat", "data=digits")  # a config of the command line

torch takes seconds to import, so these are imported where they are used.
"""

import sys
from typing import TYPE_CHECKING

if sys.argv[0] == "-m" and any(word.startswith("heatgen") for word in sys.orig_argv):  # python -m heatgen...
    from heatgen.runtime import signals

    signals.obey()  # also while torch is imported

if TYPE_CHECKING:
    from heatgen.app.api import Run as Run
    from heatgen.app.api import compose as compose
    from heatgen.app.api import load as load
    from heatgen.app.api import sample as sample

__version__ = "0.2.0"
__all__ = ["Run", "__version__", "compose", "load", "sample"]


def __getattr__(name: str) -> object:
    """One of the names above, imported at its first use."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from heatgen.app import api

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted(__all__)
