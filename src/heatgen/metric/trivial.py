"""What coders that know next to nothing need for images of bytes: above that, a bound on the bits says nothing.

uniform: log2 M bits a number, M the count of distinct values in the training images and those that are measured;
histogram: -log2 p(x), p(x) = (count of x in the training images + 1/2) / (all counts + 128), the same for every pixel. As
densities of dequantised numbers they are 256 p on each of 256 parts of [0, 1), so their bits per dimension are these.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from heatgen.data.images import ImageSet
from heatgen.data.module import DataModule
from heatgen.metric.result import Result, Value
from heatgen.noise import batches

BYTES, SMALLEST = 256, 0.5  # the values of a byte, and what is added to each count
BLOCK = 2048  # images at a time
ROWS = {"trivial_uniform": "uniform over the values", "trivial_histogram": "pixel histogram"}  # value -> row and label


def counts(images: ImageSet, indices: Sequence[int]) -> Tensor:
    """How often each byte stands in each of some images, (B, 256) float64."""
    flat = images.pixels(indices).flatten(1).long()
    zero = torch.zeros(len(flat), BYTES, dtype=torch.float64)
    return zero.scatter_add_(1, flat, torch.ones_like(flat, dtype=torch.float64))


def trivial_bits(data: DataModule, split: str, chosen: Sequence[int]) -> list[Value]:
    """The bits per dimension of both coders for the chosen images of a split; none where data are not bytes."""
    train = data.images("train")
    if data.spec.bits is None or train.pixels([0]).dtype != torch.uint8:
        return []
    learned = sum(counts(train, part).sum(0) for part in batches(range(len(train)), BLOCK))
    own = torch.cat([counts(data.images(split), part) for part in batches(chosen, BLOCK)])
    assert isinstance(learned, Tensor)
    distinct = int(((learned + own.sum(0)) > 0).sum())
    bits = -((learned + SMALLEST) / (learned.sum() + SMALLEST * BYTES)).log2()
    uniform = Value("trivial_uniform", math.log2(distinct), unit="bits/dim", label=ROWS["trivial_uniform"])
    mean = Value.mean("trivial_histogram", own @ bits / own.sum(1), "bits/dim", ROWS["trivial_histogram"])
    return [uniform, mean]


def compare_with_trivial(result: Result, name: str, data: DataModule, split: str, chosen: Sequence[int]) -> None:
    """Put both coders beside a result's bits per dimension `name`, and say so where those are vacuous."""
    found = trivial_bits(data, split, chosen)
    result.add(*found)
    for value in found:
        result.refer(ROWS[value.name], Value(name, value.value, value.error))
    bits = {value.name: value.value for value in found}
    if found and not result.values[name] < bits["trivial_histogram"]:
        result.headline = (*result.headlines, "trivial_histogram")
        result.notes.insert(
            0,
            f"vacuous: {result.values[name]:.4g} bits/dim are more than the {bits['trivial_histogram']:.4g} of the training "
            f"images' pixel histogram ({bits['trivial_uniform']:.4g} uniform over their values), which knows no image.",
        )
