"""Which sets of images are small enough to live on the GPU that trains on them, as they are stored."""

import math

from torch import Tensor

from heatgen.data.fields import FieldArray, Normalised
from heatgen.data.images import ImageSet, Pixels, Subset
from heatgen.data.packed_images import PackedImages

LARGEST = 2**30  # bytes of a split


def resident(images: ImageSet) -> Tensor | None:
    """All images of a set, (N, C, H, W) bytes or float32; None for a set that is not in memory, or mapped, or too large."""
    whole = images
    while isinstance(whole, Subset):
        whole = whole.images
    made = isinstance(whole, Normalised) and isinstance(whole.source, FieldArray)
    if not made and not isinstance(whole, (Pixels, PackedImages)):
        return None
    one = images.pixels([0])
    if len(images) * math.prod(one.shape) * one.element_size() > LARGEST:
        return None
    return images.pixels(range(len(images)))
