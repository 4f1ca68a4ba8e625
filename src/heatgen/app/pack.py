"""Write the images of a data set into one file; see conf/pack.yaml."""

import fcntl
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from torch import Tensor
from tqdm import tqdm

from heatgen import __version__, check
from heatgen.app.build import build_data
from heatgen.app.job import choices, refuse_unread, task_wrapper
from heatgen.app.plain import Options, plain
from heatgen.app.quoting import typed
from heatgen.check import ConfigError
from heatgen.data.blocks import in_order
from heatgen.data.images import ImageSet
from heatgen.data.module import SPLITS, DataModule
from heatgen.data.packed_file import write
from heatgen.runtime import claim
from heatgen.runtime.command import call, command_line
from heatgen.runtime.files import absolute

log = logging.getLogger("heatgen")
OF_TRAINING = ("augment", "batch_size", "flip", "law", "seed", "recommended")  # options of data that pack nothing
PACKAGES = ("torch", "torchvision", "numpy", "pillow", "h5py")


@task_wrapper
def pack(cfg: DictConfig) -> None:
    """Pack the data of a config into its file, whole or not at all."""
    refuse_unread(cfg)
    name = str(choices()["data"])
    if not isinstance(cfg.out, str) or not cfg.out:
        raise ConfigError("out is missing; give the file to write as out=FILE.")
    path, overwrite = absolute(cfg.out), check.boolean("overwrite", cfg.overwrite)
    data = readable(cfg, name)
    try:
        with alone(path, overwrite):
            images = {split: data.images(split) for split in SPLITS}
            checksum = write_images(path, data, images, source_of(cfg, name, data), overwrite)
    except FileExistsError:  # another program was faster
        refuse_taken(path, False)
        raise
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"{path} cannot be written ({reason}); choose another out, or free some space.") from error
    sizes = ", ".join(f"{split} {len(own)}" for split, own in images.items())
    log.info("written: %s (%.1f MB; %s; checksum %s)", path, path.stat().st_size / 1e6, sizes, checksum)
    log.info("next: %s data=packed %s", call("train"), typed("data.path", str(path)))


def write_images(path: Path, data: DataModule, images: dict[str, ImageSet], source: Options, overwrite: bool) -> str:
    """Write the splits of a data set, with a bar; the checksum of the file."""
    with tqdm(total=sum(map(len, images.values())), unit="image", desc="packing") as bar:

        def read(split: str, rows: int) -> Iterator[Tensor]:
            for block in in_order(images[split], rows, data.num_workers):
                yield block
                bar.update(len(block))

        splits = {split: (len(own), own.labels) for split, own in images.items()}
        return write(path, data.spec.shape, splits, read, source, overwrite)


def source_of(cfg: DictConfig, name: str, data: DataModule) -> Options:
    """Where a packed file comes from, as plain data."""
    return {
        "data": name,
        "settings": {key: value for key, value in plain(cfg.data).items() if key not in OF_TRAINING},
        **data.report(),
        "command": command_line(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {"heatgen": __version__} | {package: version(package) for package in PACKAGES},
    }


def readable(cfg: DictConfig, name: str) -> DataModule:
    """The data of a config, to be read once. ConfigError for what is no set of bytes, and for options that pack nothing."""
    given = [word.lstrip("+").partition("=")[0] for word in HydraConfig.get().overrides.task]
    if idle := next((key for key in given if key.startswith("data.") and key.split(".")[1] in OF_TRAINING), None):
        raise ConfigError(f"{idle} is not of the images but of their use; remove it here, and give it with data=packed.")
    if cfg.data.get("crop") == "random":
        raise ConfigError("data.crop=random draws another crop each time, and images are packed once; use data.crop=centre.")
    if "cache_limit" in cfg.data:
        cfg.data.cache_limit = 0  # nothing is read twice
    data = build_data(cfg.data)
    if data.spec.bits != 8 or data.images("train").pixels([0]).dtype != torch.uint8:
        raise ConfigError(f"data={name} has continuous fields, and a packed file holds images of bytes; use it as it is.")
    return data


def refuse_taken(path: Path, overwrite: bool) -> None:
    """ConfigError for a file that is there and may not be replaced."""
    if path.is_dir():
        raise ConfigError(f"out={path} is a folder; give a file in it, such as {path / 'images.h5'}.")
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} is already there; choose another out, or replace it with overwrite=true.")


@contextmanager
def alone(path: Path, overwrite: bool) -> Iterator[None]:
    """Keep a file that is being written to this process."""
    refuse_taken(path, overwrite)  # before anything is read
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}{claim.LOCK}")
    descriptor = claim.attempt(lock)
    if descriptor is None:
        raise ConfigError(f"{path} is being written by another process; wait for it or end it.")
    try:
        refuse_taken(path, overwrite)
        yield
    finally:
        lock.unlink(missing_ok=True)
        fcntl.flock(descriptor, fcntl.LOCK_UN)
        os.close(descriptor)
