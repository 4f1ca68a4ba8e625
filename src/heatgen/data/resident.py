"""Which sets of images are small enough to live on the GPU that trains on them, as they are stored."""

import math

from torch import Tensor

from heatgen.data.fields import FieldArray, Normalised
from heatgen.data.images import ImageSet, Pixels, Subset
from heatgen.data.packed_images import PackedImages

LARGEST = 2**30  # bytes of a split


def in_memory(images: ImageSet) -> bool:
    """Whether all images of a set are in memory, or mapped into it, so that nothing has to be decoded."""
    while isinstance(images, Subset):
        images = images.images
    return isinstance(images, (Pixels, PackedImages)) or (
        isinstance(images, Normalised) and isinstance(images.source, FieldArray)
    )


def resident(images: ImageSet) -> Tensor | None:
    """All images of a set, (N, C, H, W) bytes or float32; None for a set that is not in memory, or too large."""
    if not in_memory(images):
        return None
    one = images.pixels([0])
    if len(images) * math.prod(one.shape) * one.element_size() > LARGEST:
        return None
    return images.pixels(range(len(images)))
