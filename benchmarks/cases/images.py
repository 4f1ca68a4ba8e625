"""Reading images: a folder of JPEG files and a packed file, with 0, 2 and 4 loading processes."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.child import seconds_of
from benchmarks.harness import Bench, Entry
from heatgen.data.image_folder import ImageFolder
from heatgen.data.module import DataModule
from heatgen.data.packed import PackedData
from heatgen.data.stream import Items

SECONDS = 45
SIDE, TARGET, BATCH = (160, 120), 64, 32
ALONE = "JPEG, 0 workers"


def write(folder: Path, count: int) -> None:
    """So many smooth pictures as JPEG files."""
    rng = np.random.default_rng(0)
    (folder / "train").mkdir(parents=True)
    for i in range(count):
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize(SIDE, Image.Resampling.BICUBIC).save(folder / "train" / f"{i:05}.jpg", quality=92)


def epoch(data: DataModule) -> Callable[[], int]:
    """What reads all training images once, its loading processes waiting in between."""
    images = data.images("train")
    batches = [list(range(i, min(i + BATCH, len(images)))) for i in range(0, len(images), BATCH)]
    loader = data._loader(Items(images), batches)
    return lambda: sum(len(batch["u0"]) for batch in loader)


def measure(bench: Bench) -> Iterator[Entry]:
    """Epochs of the same pictures, all ways in turn."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "pictures"
        write(folder, 24 if bench.quick else 512)
        shape = (3, TARGET, TARGET)

        def opened(workers: int) -> DataModule:
            return ImageFolder(str(folder), shape=shape, num_workers=workers, cache_limit=0)

        ways = {f"JPEG, {n} workers": epoch(opened(n)) for n in bench.sizes((0, 2, 4), (0, 1))}
        file = pack(folder, Path(place) / "packed.h5")

        def packed(workers: int) -> DataModule:
            return PackedData(str(file), shape=shape, num_workers=workers)

        ways |= {f"packed, {n} workers": epoch(packed(n)) for n in bench.sizes((0, 2), (0,))}
        facts: dict[str, float | str] = {"cores": os.cpu_count() or 0, "ms are of": "one epoch"}
        yield from bench.compare(
            "images", f"{TARGET} x {TARGET} of {SIDE[0]} x {SIDE[1]}", {**ways}, ALONE, None, 20.0, facts
        )


def pack(folder: Path, file: Path) -> Path:
    """The same pictures in one file, written by `heatgen pack`."""
    words = ["data=image_folder", f"data.path={folder}", f"data.shape=[3,{TARGET},{TARGET}]", f"out={file}"]
    seconds_of([sys.executable, "-m", "heatgen.app", "pack", *words])
    return file
