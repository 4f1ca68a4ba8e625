"""mode=kid: the kernel Inception distance between samples and a reference."""

from typing import Unpack

import torch
from torch import Tensor

from heatgen import check
from heatgen.metric.extractor import Extractor
from heatgen.metric.features import FeatureMetric, FeatureSettings, too_few
from heatgen.metric.reduction import Rows
from heatgen.metric.result import Result, Value
from heatgen.noise import SampleNoise


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


BLOCKS = 10  # at least, of the images that a standard error is over


def block_error(x: Tensor, y: Tensor, largest: int) -> tuple[float | None, int, int]:
    """The standard error of polynomial_mmd over images, and how many disjoint blocks of how many images it is from.

    The blocks are independent, so their deviation over the root of their number is the error of their mean, which is no
    smaller than that of all images at once. None for fewer than two images a block.

    Args:
        x, y: (N, D) and (M, D), in random order.
        largest: images of a block at most.
    """
    size = min(min(len(x), len(y)) // BLOCKS, largest)
    if size < 2:
        return None, 0, size
    count = min(len(x), len(y)) // size
    blocks = zip(x[: count * size].split(size), y[: count * size].split(size), strict=True)
    values = torch.tensor([polynomial_mmd(a, b) for a, b in blocks], dtype=torch.float64)
    return values.std().item() / count**0.5, count, size


class KID(FeatureMetric[Rows]):
    """polynomial_mmd of Inception features, averaged over random subsets; unbiased, lower is better.

    Subsets share images, so their deviation, as papers give it, is no standard error: disjoint blocks of images give that.
    The features of all images are held in memory, as subsets are of any of them: 8 kB an image with Inception.

    Args:
        subsets: random subsets that are averaged.
        subset_size: images of each.
        **settings: those of `FeatureMetric`.
    """

    def __init__(self, subsets: int = 100, subset_size: int = 1000, **settings: Unpack[FeatureSettings]):
        super().__init__(**settings)
        self.subsets = check.integer("metric.subsets", subsets, minimum=1)
        self.subset_size = check.integer("metric.subset_size", subset_size, minimum=2)

    def measure(self, features: Rows, reference: Rows, extractor: Extractor, seed: int) -> Result:
        notes = ["KID is unbiased: few samples widen it only."] * bool(too_few(features, reference))
        a, b = features.tensor, reference.tensor
        size = min(self.subset_size, len(a), len(b))
        whole = size == len(a) == len(b)  # every subset is all images
        count = 1 if whole else self.subsets
        ours, theirs = (SampleNoise([i], seed, "kid") for i in range(2))
        values = torch.tensor(
            [
                polynomial_mmd(a[ours.permutation(len(a))[0, :size]], b[theirs.permutation(len(b))[0, :size]])
                for _ in range(count)
            ],
            dtype=torch.float64,
        )
        x, y = (z[SampleNoise([i], seed, "kid blocks").permutation(len(z))[0]] for i, z in enumerate((a, b)))
        error, blocks, block = block_error(x, y, self.subset_size)
        facts: dict[str, object] = {"subsets": count, "subset_size": size}
        facts |= {} if count == 1 else {"std_over_subsets": values.std().item()}
        over = f"images, in {blocks} disjoint blocks of {block}"
        if size < self.subset_size:
            what = "there is one subset, of all" if whole else "subsets are of that many"
            notes.append(
                f"metric.subset_size = {self.subset_size} is more than the {size} images of the smaller set: {what}."
            )
        if error is None:
            notes.append(f"no standard error: it needs {2 * BLOCKS} images of either kind.")
        return Result([Value("kid", values.mean().item(), error, label="KID", over=over)], facts=facts, notes=notes)
