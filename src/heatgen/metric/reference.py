"""The law that samples on the way back are compared with in mode=score."""

import dataclasses
import math

import torch
from torch import Tensor

from heatgen.data.module import DataSpec, Mixture
from heatgen.forward.process import ForwardProcess
from heatgen.metric import distances
from heatgen.oracle.find import Oracle
from heatgen.oracle.mixture import MixtureOracle

COEFFICIENTS, WORK = 64, 2**15  # coefficients at most whose laws are compared, and at most so many of them times components


class Reference:
    """The law of u_t at each time, by coefficient: the exact one, or that of points of a split seen through the map.

    Args:
        oracle: the exact answers for this law.
        points: how many points stand for it, 0 for the exact law.
        eigenbasis: whose coefficients are compared; by default the oracle's. `kept` are the compared ones, evenly chosen.
    """

    def __init__(self, oracle: Oracle, points: int = 0, eigenbasis: Oracle | None = None):
        self.oracle, self.points, self.eigenbasis = oracle, points, eigenbasis or oracle
        self.size = math.prod(oracle.process.shape)
        count = min(self.size, COEFFICIENTS, max(4, WORK // len(oracle.weights)))
        self.kept = torch.linspace(0, self.size - 1, count).round().long().to(oracle.weights.device)

    @classmethod
    def of_points(cls, process: ForwardProcess, spec: DataSpec, points: Tensor) -> "Reference":
        """The law of points (M, C, H, W), each as likely."""

        def oracle(means: Tensor) -> MixtureOracle:
            weights, stds = torch.full((len(means),), 1 / len(means)), torch.zeros(len(means))
            mixture = Mixture(weights.double(), means.double(), stds.double())
            return MixtureOracle(process, dataclasses.replace(spec, mixture=mixture))

        return cls(oracle(points), len(points), oracle(points[:1]))  # the eigenbasis is the map's own, whatever the points

    def coefficients(self, u: Tensor, t: Tensor) -> Tensor:
        """Those coefficients of states at one time, (1,); (B, d) float64."""
        return self.eigenbasis.coefficients(u, t)[:, self.kept]

    def law(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """weights (M,), means and stds (M, d) of the coefficients at one time, (1,), on the CPU."""
        means, stds = self.oracle.marginals(t)
        return self.oracle.weights.cpu(), means[:, self.kept].cpu(), stds[:, self.kept].cpu()

    def exact_ks(self, n: int) -> float:
        """The Kolmogorov-Smirnov distance that n exact draws have on average; of two samples where the law is points."""
        return distances.EXACT_KS * math.sqrt(1 / n + (1 / self.points if self.points else 0))
