"""data=packed: a file that `heatgen pack` has written, mapped into memory by as many processes and machines as there are."""

import functools
import logging
from pathlib import Path
from typing import Unpack

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.image_decoding import shown
from heatgen.data.images import ImageSet
from heatgen.data.module import DataModule, DataSettings
from heatgen.data.packed_file import Header, read_header
from heatgen.data.packed_images import PackedImages
from heatgen.runtime import ranks
from heatgen.runtime.files import absolute

log = logging.getLogger("heatgen")
VERIFY = ("lazy", "whole", "none")


class PackedData(DataModule):
    """The images of a packed file, with the splits and the order that they were packed with.

    Args:
        path: the file, kept as an absolute path.
        verify: the checksums. lazy: of a block of images (1 MiB) when it is first read; whole: of all, before a training
            begins; none.
        settings: those of `DataModule`; shape is that of the file.
    Raises:
        ConfigError: for a file that is missing, cut short, damaged, of another kind, or of images of another shape.
    """

    def __init__(self, path: str, verify: str = "lazy", **settings: Unpack[DataSettings]):
        super().__init__(**settings)
        if not path:
            raise ConfigError("data.path is not given; write data.path=FILE, a file that heatgen pack has written.")
        self.path = absolute(path)
        self.verify = check.choice("data.verify", verify, VERIFY)

    @functools.cached_property
    def packed(self) -> Header:
        """What the file says of itself, which is logged."""
        packed = read_header(self.path)
        if packed.shape != self.spec.shape:
            own, wanted = list(packed.shape), list(self.spec.shape)
            raise ConfigError(
                f"data.path = {shown(self.path)} holds images of shape {own}, and data.shape is {wanted}; leave data.shape "
                "out, or pack the images again in that shape."
            )
        if ranks.rank() == 0:
            splits = ", ".join(f"{split} {size}" for split, size in packed.sizes.items())
            log.info("data.path = %s, packed images: %s; checksum %s", shown(self.path), splits, packed.checksum)
        return packed

    def read(self, split: str) -> ImageSet:
        images = PackedImages(self.packed, split, self.verify != "none")
        if self.verify == "whole" and ranks.rank() == 0:
            images.check_all()
        return images

    def report(self) -> dict[str, object]:
        own = {"path": shown(self.path), "checksum": self.packed.checksum, "packed": self.packed.source}
        return super().report() | own


def shape_of(path: Path) -> tuple[int, ...] | None:
    """The shape of the images of a packed file; None where there is no such file, which is said when it is read."""
    try:
        return read_header(path).shape
    except ConfigError:
        return None
