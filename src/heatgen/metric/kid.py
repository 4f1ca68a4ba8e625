"""mode=kid: the kernel Inception distance between samples and a reference."""

from typing import Unpack

import torch
from torch import Tensor

from heatgen import check
from heatgen.metric.extractor import Extractor
from heatgen.metric.features import FeatureMetric, FeatureSettings, too_few
from heatgen.metric.result import Result, Value
from heatgen.noise import generator


def polynomial_mmd(x: Tensor, y: Tensor) -> float:
    """The unbiased squared maximum mean discrepancy of x, y (N, D) with the kernel (x.y / D + 1)^3, in float64.

    Source: Binkowski et al. 2018, section 4 and eq. 4.
    """
    x, y = x.double(), y.double()
    n, m, d = len(x), len(y), x.shape[1]

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return (a @ b.mT / d + 1) ** 3

    within_x, within_y = kernel(x, x), kernel(y, y)
    same = (within_x.sum() - within_x.trace()) / (n * (n - 1)) + (within_y.sum() - within_y.trace()) / (m * (m - 1))
    return (same - 2 * kernel(x, y).mean()).item()


class KID(FeatureMetric):
    """polynomial_mmd of Inception features, averaged over random subsets; unbiased, lower is better.

    Args:
        subsets: random subsets that are averaged.
        subset_size: images of each.
        **settings: those of `FeatureMetric`.
    """

    def __init__(self, subsets: int = 100, subset_size: int = 1000, **settings: Unpack[FeatureSettings]):
        super().__init__(**settings)
        self.subsets = check.integer("metric.subsets", subsets, minimum=1)
        self.subset_size = check.integer("metric.subset_size", subset_size, minimum=2)

    def measure(self, features: Tensor, reference: Tensor, extractor: Extractor, seed: int) -> Result:
        size = min(self.subset_size, len(features), len(reference))
        order = generator(seed, "kid")
        values = torch.tensor(
            [
                polynomial_mmd(
                    features[torch.randperm(len(features), generator=order)[:size]],
                    reference[torch.randperm(len(reference), generator=order)[:size]],
                )
                for _ in range(self.subsets)
            ],
            dtype=torch.float64,
        )
        spread = values.std().item() if self.subsets > 1 else float("nan")
        facts: dict[str, object] = {"subsets": self.subsets, "subset_size": size, "std_over_subsets": spread}
        few = ["KID is unbiased: few samples widen it only."] * bool(too_few(features, reference))
        return Result([Value("kid", values.mean().item(), label="KID")], facts=facts, notes=few)
