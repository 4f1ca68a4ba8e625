"""mode=fid: the Frechet Inception distance between samples and a reference."""

import torch
from torch import Tensor

from heatgen.metric.extractor import Extractor
from heatgen.metric.features import FeatureMetric, too_few
from heatgen.metric.reduction import Moments
from heatgen.metric.result import Result, Value


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in float64; 0 where it is below its own rounding, as for equal moments.

    tr (C1 C2)^(1/2) = |R1 R2|_* with the symmetric roots R = C^(1/2): the sum of the singular values, which loses no digits
    where a covariance has no full rank, as roots of eigenvalues do.

    Args:
        mean1, mean2: (D,) float64.
        cov1, cov2: (D, D) float64, symmetric, without negative eigenvalues.

    Source:
        Heusel et al. 2017, eq. 6.
    """
    shared = torch.linalg.svdvals(symmetric_root(cov1) @ symmetric_root(cov2)).sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * shared
    eps = torch.finfo(torch.float64).eps
    rounding = (len(mean1) + 16) * eps * (cov1.trace() + cov2.trace()) + (16 * eps) ** 2 * (mean1 @ mean1 + mean2 @ mean2)
    return distance.item() if distance > rounding else 0.0


def symmetric_root(cov: Tensor) -> Tensor:
    """C^(1/2) of a symmetric C without negative eigenvalues, (D, D); those within the rounding of the largest are 0."""
    values, vectors = torch.linalg.eigh(cov)
    noise = len(values) * torch.finfo(values.dtype).eps * values.abs().max()
    output: Tensor = (vectors * torch.where(values > noise, values, 0).sqrt()) @ vectors.mT
    return output


class FID(FeatureMetric[Moments]):
    """The Frechet distance between Gaussian fits to features; lower is better.

    It has no standard error: it is biased upwards, at few images by more than it would vary, so compare at equal n. Neither
    samples nor features are held, only their moments.
    """

    takes_file = True

    def reduction(self, n: int, extractor: Extractor) -> Moments:
        return Moments()

    def measure(self, features: Moments, reference: Moments, extractor: Extractor, seed: int) -> Result:
        distance = frechet_distance(*features.gaussian, *reference.gaussian)
        facts: dict[str, object] = {"error of fid": "none: its bias, by the number of images, is larger; compare at equal n"}
        return Result([Value("fid", distance, label="FID")], facts=facts, notes=too_few(features, reference))
