"""data=digits: scikit-learn's handwritten digits, 1,797 grey images of 8x8 pixels. They need no download."""

from typing import Unpack

import torch

from heatgen.data.images import ImageSet, Pixels, hold_out
from heatgen.data.module import DataModule, DataSettings


class Digits(DataModule):
    """The digits, (1, 8, 8): 17 grey levels, stored as bytes round(255 v / 16).

    Args:
        val_size, test_size: images that are held out.
        settings: those of `DataModule`.
    Source: scikit-learn's `load_digits` (UCI optical digits, test part).
    """

    def __init__(self, val_size: int = 180, test_size: int = 180, **settings: Unpack[DataSettings]):
        super().__init__(**settings)
        self.val_size, self.test_size = val_size, test_size

    def read(self, split: str) -> ImageSet:
        from sklearn.datasets import load_digits

        digits = load_digits()
        array = torch.from_numpy(digits.images).mul(255 / 16).round().to(torch.uint8)
        rest, test = hold_out(
            Pixels(array[:, None], torch.from_numpy(digits.target).long()), self.test_size, "data.test_size"
        )
        train, val = hold_out(rest, self.val_size, "data.val_size")
        return {"train": train, "val": val, "test": test}[split]
