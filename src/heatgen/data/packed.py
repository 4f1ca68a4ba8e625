"""data=packed and memory: a file that `heatgen pack` or `heatgen.train` has written, mapped into memory by any number of
processes and machines."""

import functools
import logging
from pathlib import Path
from typing import Unpack

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.image_decoding import shown
from heatgen.data.images import ImageSet
from heatgen.data.module import DataModule, DataSettings, DataSpec
from heatgen.data.packed_file import AGAIN, Header, read_header
from heatgen.data.packed_images import PackedImages
from heatgen.runtime import ranks
from heatgen.runtime.files import absolute

log = logging.getLogger("heatgen")
VERIFY = ("lazy", "whole", "none")


class PackedData(DataModule):
    """The images or fields of a packed file, with the splits and the order that they were packed with.

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
        header = header_of(self.path)
        if header is not None and header.floats:
            self.spec = DataSpec(self.spec.shape, value_range_of(header), bits=None)

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
            span = ", of numbers from {:g} to {:g}".format(*value_range_of(packed)) if packed.floats else ""
            log.info("data.path = %s, packed images: %s%s; checksum %s", shown(self.path), splits, span, packed.checksum)
        return packed

    def read(self, split: str) -> ImageSet:
        images = PackedImages(self.packed, split, self.verify != "none")
        if self.verify == "whole" and ranks.rank() == 0:
            images.check_all()
        return images

    def report(self) -> dict[str, object]:
        own = {"path": shown(self.path), "checksum": self.packed.checksum, "packed": self.packed.source}
        return super().report() | own


def header_of(path: Path) -> Header | None:
    """What a packed file says of itself; None where there is no such file, which is said when it is read."""
    try:
        return read_header(path)
    except ConfigError:
        return None


def value_range_of(header: Header) -> tuple[float, float]:
    """The range of the floats of a packed file. ConfigError where it says none."""
    told = header.source.get("value_range")
    if isinstance(told, list) and len(told) == 2:
        low, high = (check.number("value_range", number) for number in told)
        if low < high:
            return low, high
    raise ConfigError(f"data.path = {shown(header.path)} does not say the range of its numbers; {AGAIN}.")
