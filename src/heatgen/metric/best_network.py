"""The reverse steps of the best network, where the law of the data is known: what a bound lacks for want of it."""

from collections.abc import Sequence

import torch
from torch import Tensor

from heatgen.data.module import DataSpec
from heatgen.forward.process import ForwardProcess
from heatgen.model.module import Method
from heatgen.noise import SampleNoise
from heatgen.oracle.find import Oracle, answers_given


class BestNetwork:
    """The mean of u_s given u_t = u, which no network that sees u_t alone can better in squared error.

    mu*(u, t, s) = E[u_s | u_t = u] = target_mean(E[u_0 | u_t = u], u, t, s), as target_mean is affine in u_0. A network's
    reverse steps N(mu, delta^2) have in expectation |mu - mu*|^2 / (2 delta^2) nats more than steps N(mu*, delta^2).

    Args:
        oracles: one for all samples, or one for each, given its draw of the map.
    """

    def __init__(self, oracles: Sequence[Oracle]):
        self.oracles = oracles

    @classmethod
    def find(cls, process: ForwardProcess, spec: DataSpec) -> "BestNetwork | None":
        """That of all samples, for a map drawn at random that of a first draw; None where the law is not known.

        ConfigError for a map that is not diagonal, of a field that is too large.
        """
        oracle = answers_given(process.bind(process.draw(SampleNoise([0], 0, "best network"))), spec)
        return None if oracle is None else cls([oracle])

    def given(self, process: ForwardProcess, spec: DataSpec, rng: SampleNoise) -> "BestNetwork":
        """That of samples whose draws of the map are those of rng; itself for a map without draws."""
        draws = process.draw(rng)
        if draws is None:
            return self
        found = (answers_given(process.bind(draw[None]), spec) for draw in draws)
        return BestNetwork([oracle for oracle in found if oracle is not None])

    def mean(self, model: Method, u: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """mu*(u, t, s), (B, C, H, W) float64; model is bound to its draws."""
        u = u.double()
        if len(self.oracles) == 1:
            best = self.oracles[0].posterior_mean(u, t)
        else:
            each = zip(self.oracles, u.split(1), t.split(1), strict=True)
            best = torch.cat([oracle.posterior_mean(*state) for oracle, *state in each])
        return model.target_mean(best, u, t, s)
