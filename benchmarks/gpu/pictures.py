"""Pictures for trainings on a machine without a network: scikit-learn's digits, larger, and blobs of colour."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 28


def digits(folder: Path, limit: int | None = None) -> Path:
    """scikit-learn's handwritten digits as 28 x 28 files, written where they are not there yet."""
    from sklearn.datasets import load_digits

    pictures = (load_digits().images * (255 / 16)).astype(np.uint8)[:limit]
    return write(folder, [Image.fromarray(p).resize((SIDE, SIDE), Image.Resampling.BICUBIC) for p in pictures])


def blobs(folder: Path, count: int = 4000, side: int = 32) -> Path:
    """Smooth random colours as side x side files, written where they are not there yet."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 5, 5, 3), dtype=np.uint8)
    return write(folder, [Image.fromarray(p).resize((side, side), Image.Resampling.BICUBIC) for p in coarse])


def write(folder: Path, pictures: list[Image.Image]) -> Path:
    """The pictures as files train/N.png of a folder, which is returned; one that is whole stays."""
    train = folder / "train"
    if len(list(train.glob("*.png"))) != len(pictures):
        train.mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pictures):
            picture.save(train / f"{i:05}.png")
    return folder
