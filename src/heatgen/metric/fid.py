"""mode=fid: the Frechet Inception distance between samples and a reference."""

import torch
from torch import Tensor

from heatgen.metric.extractor import Extractor
from heatgen.metric.features import FeatureMetric, too_few
from heatgen.metric.metric import Result


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), in float64."""
    x = features.double()
    return x.mean(0), x.mT.cov()


def frechet_distance(mean1: Tensor, cov1: Tensor, mean2: Tensor, cov2: Tensor) -> float:
    """|m1 - m2|^2 + tr(C1 + C2 - 2 (C1 C2)^(1/2)), in float64; 0 for equal moments.

    The trace of the root is the sum of the roots of the eigenvalues of R C2 R with R = C1^(1/2), which is symmetric and
    so exact for covariances without full rank too. means: (D,); covs: (D, D). Source: Heusel et al. 2017, eq. 6.
    """
    values, vectors = torch.linalg.eigh(cov1)
    root = (vectors * values.clamp(min=0).sqrt()) @ vectors.mT
    shared = torch.linalg.eigvalsh(root @ cov2 @ root).clamp(min=0).sqrt().sum()
    distance = (mean1 - mean2).square().sum() + cov1.trace() + cov2.trace() - 2 * shared
    return max(0.0, distance.item())


class FID(FeatureMetric):
    """The Frechet distance between Gaussian fits to features; lower is better. No standard error: it is biased."""

    def measure(self, features: Tensor, reference: Tensor, extractor: Extractor, seed: int) -> Result:
        distance = frechet_distance(*moments(features), *moments(reference))
        return Result({"fid": distance}, notes=too_few(features, reference))
