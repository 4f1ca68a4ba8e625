"""data=huggingface: a data set of images that Hugging Face's `datasets` saved on this machine (`save_to_disk`)."""

import functools
import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from heatgen.check import ConfigError, did_you_mean
from heatgen.data.image_decoding import shown
from heatgen.data.image_files import Source
from heatgen.data.image_folder import ImageFolder
from heatgen.data.image_search import Contents, split_named
from heatgen.data.image_walk import Ledger
from heatgen.data.lmdb_files import Entry

if TYPE_CHECKING:
    from datasets import Dataset

PARTS = ("dataset_dict.json", "dataset_info.json")  # one of which is in a folder that was saved


@dataclass(frozen=True, slots=True)
class Row(Entry):
    """The image file in a row of a column; `folder` is that of the saved data set, `key` is split, column and row."""

    def parts(self) -> tuple[str, str, int]:
        """The split, the column and the row."""
        split, column, row = self.key.decode().split("\0")
        return split, column, int(row)

    def __str__(self) -> str:
        split, column, row = self.parts()
        return f"{self.folder}:{split}[{row}][{column}]"

    def stat(self) -> os.stat_result:
        """That of the file which describes the data set."""
        return next(path for name in PARTS if (path := self.folder / name).is_file()).stat()

    def open(self) -> BytesIO:
        """Its bytes, as a file. FileNotFoundError where it holds none."""
        split, column, row = self.parts()
        image = encoded(self.folder, column)[split][row][column]
        if image and image["bytes"] is None and image["path"]:
            return BytesIO(Path(image["path"]).read_bytes())
        if not image:
            raise FileNotFoundError(str(self))
        return BytesIO(image["bytes"])


class HuggingFace(ImageFolder):
    """The images of a saved data set, resized and cropped as those of data=image_folder.

    Splits: those named train, val (or validation) and test; a missing one is held out of the training images.

    Args:
        path: the folder that `save_to_disk` has written.
        column: of the images; None: the first that holds some.
        settings: those of `ImageFolder`.
    Raises:
        ConfigError: there is no such data set, column or image, or `datasets` is not installed.
    """

    def __init__(self, path: str, column: str | None = None, **settings: Any):
        super().__init__(path, **settings)
        self.column = column

    def search(self) -> Contents:
        """The rows of each split."""
        found = saved(self.path)
        paths: dict[str, list[Source]] = {}
        for name, rows in found.items():
            split = split_named(name)
            if split is not None and split not in paths:
                column = image_column(rows, self.column, self.path)
                paths[split] = [Row(self.path, f"{name}\0{column}\0{i}".encode()) for i in range(len(rows))]
        if not paths.get("train"):
            raise ConfigError(f"data.path = {shown(self.path)} has the splits {', '.join(found)}; one must be named train.")
        return Contents(paths, {}, Ledger(), [])


def library() -> ModuleType:
    """`datasets`. ConfigError where it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise ConfigError("data=huggingface needs the package datasets: pip install 'heatgen[huggingface]'.") from error
    return datasets  # type: ignore[no-any-return]


@functools.cache
def saved(path: Path) -> "dict[str, Dataset]":
    """The splits of a saved data set, one without splits as train. ConfigError where there is none."""
    datasets = library()
    if not any((path / name).is_file() for name in PARTS):
        raise ConfigError(
            f"data.path = {shown(path)} is no data set of Hugging Face's; give a folder that save_to_disk wrote."
        )
    try:
        found = datasets.load_from_disk(str(path))
    except Exception as error:  # of what is missing in it, or damaged
        reason = str(error).split("\n")[0].rstrip(".")
        raise ConfigError(f"data.path = {shown(path)} cannot be read ({reason}); save it again.") from error
    return dict(found) if isinstance(found, datasets.DatasetDict) else {"train": found}


@functools.cache
def encoded(path: Path, column: str) -> "dict[str, Dataset]":
    """The splits of a saved data set whose images are left as the files that they were."""
    image = library().Image(decode=False)
    return {name: rows.cast_column(column, image) for name, rows in saved(path).items() if column in rows.column_names}


def image_column(rows: "Dataset", wanted: str | None, path: Path) -> str:
    """The column of the images. ConfigError where there is none."""
    names = [str(name) for name, kind in rows.features.items() if isinstance(kind, library().Image)]
    if names and (wanted is None or wanted in names):
        return names[0] if wanted is None else wanted
    if names:
        raise ConfigError(
            f"data.column={wanted} is no column of images{did_you_mean(str(wanted), names) or f'; use {names[0]}.'}"
        )
    raise ConfigError(
        f"data.path = {shown(path)} has no column of images (it has {', '.join(rows.column_names)}); give what it holds to "
        "heatgen.train(data=...)."
    )
