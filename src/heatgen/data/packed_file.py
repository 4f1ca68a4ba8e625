"""Packed files: all splits of an image set in one HDF5 file, with a checksum of every block of rows.

    images  (N, C, H, W) uint8, or float32, contiguous: the rows of train, then of val, then of test
    sums    (M, 16) uint8: BLAKE2b-128 of the bytes of each block of `rows` images; no block has images of two splits
    labels  a group with (n,) int64 for each split that has classes

    source  JSON: what was packed, how, when and by which versions

Attributes: `format`, `version` (2 where the images are floats), the sizes `train`, `val` and `test`, `rows`, `checksum` (of
sizes, classes and `sums`, which stand for the images). A file is written whole or not at all.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import torch
from torch import Tensor

from heatgen.check import ConfigError
from heatgen.data.blocks import rows_of
from heatgen.data.field_files import take_room
from heatgen.data.field_layout import DAMAGE, SIGNATURE, in_words, listing
from heatgen.data.image_decoding import shown
from heatgen.runtime.files import atomic_path

FORMAT, VERSION = "heatgen packed images", 2
DTYPES: dict[int, np.dtype] = {1: np.dtype(np.uint8), 2: np.dtype("<f4")}  # of the images, by version
DIGEST = 16  # bytes of a checksum
AGAIN = "copy it again, or pack it again with heatgen pack"


@dataclass(frozen=True)
class Header:
    """What a packed file says of itself, checked against the file.

    Args:
        path: the file.
        shape: (C, H, W) of its images.
        sizes: the images of each split, in the order of the file.
        rows: of a block, at most.
        offset: where the images begin in the file, in bytes; None where they do not lie in one piece.
        sums: (M, 16) uint8.
        labels: (n,) int64 of each split that has them.
        checksum: of the whole file, hexadecimal.
        source: what was packed, as plain data.
        dtype: of the images, uint8 or float32.
    """

    path: Path
    shape: tuple[int, ...]
    sizes: dict[str, int]
    rows: int
    offset: int | None
    sums: np.ndarray
    labels: dict[str, Tensor]
    checksum: str
    source: dict[str, object]
    dtype: np.dtype = DTYPES[1]

    @property
    def floats(self) -> bool:
        """Whether its images are floats."""
        return self.dtype.kind == "f"

    def start(self, split: str) -> int:
        """The first row of a split."""
        names = list(self.sizes)
        return sum(self.sizes[name] for name in names[: names.index(split)])

    def first_block(self, split: str) -> int:
        """The first block of a split."""
        names = list(self.sizes)
        return sum(-(-self.sizes[name] // self.rows) for name in names[: names.index(split)])


def block_sum(block: np.ndarray) -> bytes:
    """The checksum of the bytes of some images."""
    return hashlib.blake2b(np.ascontiguousarray(block).data, digest_size=DIGEST).digest()


def whole_sum(
    shape: tuple[int, ...], sizes: Mapping[str, int], rows: int, sums: np.ndarray, labels: Mapping[str, Tensor]
) -> str:
    """The checksum of a file: the same wherever images, splits and classes are."""
    digest = hashlib.blake2b(repr((list(shape), list(sizes.items()), rows)).encode(), digest_size=DIGEST)
    digest.update(sums.tobytes())
    for split in sizes:
        if split in labels:
            digest.update(split.encode() + labels[split].numpy().astype("<i8").tobytes())
    return digest.hexdigest()


# writing ------------------------------------------------------------------------------------------------------------------


def write(
    path: Path,
    shape: tuple[int, ...],
    splits: Mapping[str, tuple[int, Tensor | None]],
    images: Callable[[str, int], Iterable[Tensor]],
    source: Mapping[str, object],
    replace: bool = False,
    floats: bool = False,
) -> str:
    """Write a packed file, whole or not at all; its checksum.

    HDF5 cannot end a file whose disk is full; so the room is taken before the first image is read, and bytes are written
    beside HDF5.

    Args:
        path: the file.
        shape: (C, H, W).
        splits: how many images each has, and their classes, (n,) int64, where there are any.
        images: split, rows -> the images of that split in order, `rows` at a time, uint8 or float32.
        source: what was packed, as plain data.
        replace: a file that is there.
        floats: whether the images are float32.
    Raises:
        ConfigError: what is read is not of that kind and shape.
        OSError: there is not enough room; FileExistsError where it may not replace a file.
    """
    sizes, rows = {split: size for split, (size, _) in splits.items()}, rows_of(shape)
    version, kind = (2, torch.float32) if floats else (1, torch.uint8)
    labels = {split: own for split, (_, own) in splits.items() if own is not None}
    with atomic_path(path, replace=replace) as beside:
        offset = reserve(beside, shape, sizes, rows, labels, source, version)
        sums: list[bytes] = []
        with beside.open("r+b") as file:
            file.seek(offset)
            for split in sizes:
                for block in images(split, rows):
                    if block.dtype != kind or tuple(block.shape[1:]) != shape:
                        raise ConfigError(
                            f"The {split} images are {block.dtype} {tuple(block.shape[1:])}, not {kind} {shape}."
                        )
                    file.write(block.contiguous().numpy().data)
                    sums.append(block_sum(block.numpy()))
        found = np.frombuffer(b"".join(sums), np.uint8).reshape(-1, DIGEST)
        checksum = whole_sum(shape, sizes, rows, found, labels)
        with h5py.File(beside, "r+") as file:  # in place: nothing grows
            file["sums"][...] = found
            file.attrs.modify("checksum", checksum)
    return checksum


def reserve(
    path: Path,
    shape: tuple[int, ...],
    sizes: Mapping[str, int],
    rows: int,
    labels: Mapping[str, Tensor],
    source: Mapping[str, object],
    version: int = 1,
) -> int:
    """Make a packed file without images, with the room for them on the disk; where they begin, in bytes."""
    count, blocks = sum(sizes.values()), sum(-(-size // rows) for size in sizes.values())
    take_room(path, count * int(np.prod(shape)) * DTYPES[version].itemsize + blocks * DIGEST + 8 * count + 2**20)
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        file.attrs.update({"format": FORMAT, "version": version, "rows": rows, "checksum": "0" * 2 * DIGEST, **sizes})
        file["source"] = json.dumps(source)  # a dataset, as an attribute has room for 64 kB
        file.create_dataset("sums", (blocks, DIGEST), np.uint8, dcpl=early)
        for split, own in labels.items():
            file.create_dataset(f"labels/{split}", data=own.numpy().astype("<i8"))
        offset = file.create_dataset("images", (count, *shape), DTYPES[version], dcpl=early).id.get_offset()
    assert offset is not None
    take_room(path, path.stat().st_size)
    return int(offset)


# reading ------------------------------------------------------------------------------------------------------------------


def opened(path: Path) -> h5py.File:
    """The file, for reading; without HDF5's locks, as it never changes under its name and many machines may read it."""
    return h5py.File(path, "r", locking=False)


def read_header(path: Path) -> Header:
    """What a packed file says of itself. ConfigError for one that is missing, of another kind, damaged or cut short."""
    name = f"data.path = {shown(path)}"
    if path.is_dir():
        raise ConfigError(f"{name} is a folder; pack it with heatgen pack, or read it with data=image_folder.")
    if not path.is_file():
        raise ConfigError(f"{name} is not there; give the packed file as data.path=FILE.")
    try:
        with opened(path) as file:
            return header_of(file, path)
    except ConfigError:
        raise
    except DAMAGE as error:
        raise ConfigError(f"{name} {why_closed(path, error)}.") from error


def why_closed(path: Path, error: BaseException) -> str:
    """Why a file cannot be read, and what to do."""
    if isinstance(error, PermissionError):
        return "may not be read by you; change its permissions (chmod +r)"
    words = in_words(error)
    with path.open("rb") as file:
        start = file.read(8)
    size = path.stat().st_size
    if "truncated" in words or size == 0:
        return f"is cut short at {size} bytes; {AGAIN}"
    if start != SIGNATURE:
        return f"is not an HDF5 file (it starts with {start!r}); give one that heatgen pack has written"
    return f"is damaged ({words}); {AGAIN}"


def header_of(file: h5py.File, path: Path) -> Header:
    """What an open file says of itself; see `read_header`."""
    name, attrs = f"data.path = {shown(path)}", file.attrs
    if attrs.get("format") != FORMAT:
        raise ConfigError(f"{name} is not a packed file (it holds {listing(file)}); give one that heatgen pack has written.")
    if (version := int(attrs["version"])) > VERSION:
        raise ConfigError(
            f"{name} is of version {version} of packed files, and this heatgen reads up to {VERSION}; use a newer "
            "heatgen, or pack it again with this one."
        )
    images, dtype = file["images"], DTYPES.get(version, DTYPES[1])
    if images.dtype != dtype:
        wanted = "floats (float32)" if dtype.kind == "f" else "bytes (uint8)"
        raise ConfigError(f"{name} holds images of {images.dtype}, not {wanted}; pack them again with heatgen pack.")
    sizes = {split: int(attrs[split]) for split in ("train", "val", "test")}
    count, rows, shape = sum(sizes.values()), int(attrs["rows"]), tuple(int(size) for size in images.shape[1:])
    if images.ndim != 4 or len(images) != count or min(*sizes.values(), *shape, rows) < 1:
        splits = ", ".join(f"{split} {size}" for split, size in sizes.items())
        raise ConfigError(f"{name} holds images {images.shape}, and says {splits}; {AGAIN}.")
    if images.is_virtual or images.external:
        raise ConfigError(f"{name} keeps its images in other files; write a copy that holds them (h5repack).")
    offset = images.id.get_offset()
    if offset is not None and offset + images.size * dtype.itemsize > path.stat().st_size:
        raise ConfigError(f"{name} is cut short at {path.stat().st_size} bytes; {AGAIN}.")
    damaged = ConfigError(f"{name} is damaged (its checksum differs); {AGAIN}.")
    blocks = sum(-(-size // rows) for size in sizes.values())
    if file["sums"].shape != (blocks, DIGEST) or blocks * DIGEST > path.stat().st_size:
        raise damaged
    sums, labels = file["sums"][()], {}
    for split, own in file.get("labels", {}).items():
        if own.shape != (sizes.get(split),) or own.dtype.kind not in "iu":
            raise damaged
        labels[split] = torch.from_numpy(own[()].astype(np.int64))
    checksum = str(attrs["checksum"])
    source = json.loads(file["source"][()])
    if version < 1 or not isinstance(source, dict) or whole_sum(shape, sizes, rows, sums, labels) != checksum:
        raise damaged
    return Header(path, shape, sizes, rows, offset, sums, labels, checksum, source, dtype)
