"""data=image_folder: any folder of images, however deep. AFHQ, FFHQ and LSUN church are presets of it."""

import functools
import itertools
import logging
import math
from collections.abc import Sequence
from typing import Unpack

import torch
from tqdm import tqdm

from heatgen import check
from heatgen.check import ConfigError
from heatgen.data.blocks import in_order, rows_of
from heatgen.data.image_decoding import Decoding, background_of, shown, value_range_of
from heatgen.data.image_files import MODES, SEVERAL, ImageFiles, Source, count_frames, has_frames, is_deep
from heatgen.data.image_search import Contents, search
from heatgen.data.images import ImageSet, Pixels, held_out
from heatgen.data.kept import Kept
from heatgen.data.lmdb_files import holds_lmdb
from heatgen.data.lmdb_search import search_lmdb
from heatgen.data.module import SPLITS, DataModule, DataSettings
from heatgen.data.resident import LARGEST
from heatgen.runtime import ranks
from heatgen.runtime.command import call
from heatgen.runtime.files import absolute

log = logging.getLogger("heatgen")
LOOKED = 100  # files that are opened to see what kind they are
DARK = 64  # of 255: images of 16 bits that nowhere reach it are said to be dark


class ImageFolder(DataModule):
    """Images under `path`, resized and cropped to shape = [1 or 3, H, W]; of files, or of LMDBs as LSUN comes.

    Splits: sub-folders train, val and test where they exist (in any case, or with a usual name such as validation); a
    missing one is held out of the training images at random. What is taken and what is left out is logged, see
    `image_search.search`, and kept in a run's data.json.

    Args:
        path: the folder, or an LMDB, kept as an absolute path.
        val_fraction, test_fraction: of the training images, for a split without a folder.
        resize: shorter | stretch | none, see `ImageFiles`.
        resize_to: the shorter side before the crop, in pixels; None: just enough.
        crop: centre | random.
        frames: of animations and files of several pages: first | all, each an image.
        background: what shows through transparent pixels: white | black | [r,g,b], see `image_decoding.Decoding`.
        value_range: auto | [lo,hi], the numbers of 16- and 32-bit and float images that are black and white; see there.
        cache_limit: MiB; images of a split are kept in memory, as bytes, if they take at most that and crops are not
            random. One process reads them before a training begins, with its loading processes; of several each keeps
            what it needs, when it needs it.
        settings: those of `DataModule`.
    Raises:
        ConfigError: for a missing or empty folder or a broken file, by name.
    """

    def __init__(
        self,
        path: str,
        val_fraction: float = 0.05,
        test_fraction: float = 0.05,
        resize: str = "shorter",
        resize_to: int | None = None,
        crop: str = "centre",
        frames: str = "first",
        background: str | Sequence[int] = "white",
        value_range: str | Sequence[float] = "auto",
        cache_limit: float = 2048,
        **settings: Unpack[DataSettings],
    ):
        super().__init__(**settings)
        if len(self.spec.shape) != 3 or self.spec.shape[0] not in MODES:
            raise ConfigError(f"data.shape must be [1 or 3, height, width], not {list(self.spec.shape)}.")
        if not path:
            raise ConfigError("data.path is not given; write data.path=FOLDER, the folder that holds the images.")
        self.path = absolute(path)
        self.fractions = {
            "val": check.number("data.val_fraction", val_fraction, above=0, maximum=0.5),
            "test": check.number("data.test_fraction", test_fraction, above=0, maximum=0.5),
        }
        self.resize = check.choice("data.resize", resize, ("shorter", "stretch", "none"))
        self.crop = check.choice("data.crop", crop, ("centre", "random"))
        shorter = min(self.spec.shape[1:])
        self.size = shorter if resize_to is None else check.integer("data.resize_to", resize_to, minimum=shorter)
        self.frames = check.choice("data.frames", frames, ("first", "all"))
        mode = MODES[self.spec.shape[0]]
        self.decoding = Decoding(mode, background_of(background), value_range_of(value_range))
        self.cache_limit = check.number("data.cache_limit", cache_limit, minimum=0) * 2**20

    @functools.cached_property
    def contents(self) -> Contents:
        """What the folder holds, which is logged."""
        found = self.search()
        found.notes.extend(self._frames_left_out(found))
        if ranks.rank() == 0:
            log.info("data.path = %s, %s", shown(self.path), self._words(found))
            if found.left_out.counts:
                log.info("left out: %s", found.left_out.words(self.path))
            for note in found.notes:
                log.warning("Note: %s", note)
        return found

    def search(self) -> Contents:
        """What there is at `path`, by split."""
        return search_lmdb(self.path) if holds_lmdb(self.path) else search(self.path)

    def _frames_left_out(self, found: Contents) -> list[str]:
        """A note on files of which the first frame alone is taken; .png is hardly ever one, and would take long."""
        files = (path for paths in found.paths.values() for path in paths if path.suffix.lower() in SEVERAL - {".png"})
        looked = [] if self.frames == "all" else list(itertools.islice(files, LOOKED))
        several = [path for path in looked if has_frames(path)]
        if not several:
            return []
        count = f"{len(several)} of the {len(looked)} files that were looked at, such as {shown(several[0])},"
        return [f"{count} have several frames or pages, and the first is taken; data.frames=all takes each of them."]

    def _words(self, found: Contents) -> str:
        """How many files of which folder each split has."""
        parts = []
        for split, paths in self._shares(found).items():
            folder = found.folders.get(split)
            origin = f" (folder {shown(folder.name)})" if folder else "" if split == "train" else " (held out)"
            parts.append(f"{split} {len(paths)}{origin}")
        return f"image files: {', '.join(parts)}"

    def _shares(self, found: Contents) -> dict[str, list[Source]]:
        """The files of each split: those of its folder, or held out of the training images."""
        shares, missing = dict(found.paths), [split for split in ("test", "val") if split not in found.paths]
        whole = len(shares["train"])
        sizes = {split: max(1, round(self.fractions[split] * whole)) for split in missing}
        if sum(sizes.values()) >= whole:
            raise self._too_few(whole, missing)
        for split, size in sizes.items():
            rest, held = held_out(len(shares["train"]), size, f"data.{split}_fraction")
            shares[split] = [shares["train"][i] for i in held]
            shares["train"] = [shares["train"][i] for i in rest]
        return {split: shares[split] for split in SPLITS}

    def _too_few(self, n: int, missing: list[str]) -> ConfigError:
        """The sentence for n training images of which none is left when the missing splits are held out."""
        if n > len(missing):
            keys = " and ".join(f"data.{split}_fraction" for split in missing)
            return ConfigError(f"{keys} leave none of the {n} training images; lower them.")
        images, splits = "1 training image" if n == 1 else f"{n} training images", " and ".join(missing)
        return ConfigError(
            f"data.path = {shown(self.path)} holds {images}, too few to hold out {splits} as well; add images, or folders "
            f"named {splits}."
        )

    def read(self, split: str) -> ImageSet:
        paths = self._shares(self.contents)[split]
        frames = [0] * len(paths)
        if self.frames == "all":
            bar = tqdm(paths, desc=f"counting frames of {split} files", leave=False, delay=2)
            pairs = [(path, frame) for path in bar for frame in range(count_frames(path))]
            if ranks.rank() == 0:
                log.info("data.frames = all: %d images in %d %s files", len(pairs), len(paths), split)
            paths, frames = [path for path, _ in pairs], [frame for _, frame in pairs]
        files = ImageFiles(paths, self.spec.shape, self.resize, self.crop, self.size, self.decoding, frames)
        images = self._cached(self.limited(files, split), split)
        if split == "train" and isinstance(images, Pixels):
            self._note_darkness(int(images.array.max()), paths)
        return images

    def _note_darkness(self, brightest: int, paths: list[Source]) -> None:
        """Note that 16-bit files use a small part of their range, as those of 12-bit cameras do, where they are dark."""
        if brightest >= DARK or self.decoding.value_range or not any(map(is_deep, paths[:LOOKED])):
            return
        fix = "where 16-bit files use a part of their range alone, data.value_range=[lo,hi] says which"
        self.contents.notes.append(f"no train pixel is brighter than {brightest} of 255; {fix}.")
        if ranks.rank() == 0:
            log.warning("Note: %s", self.contents.notes[-1])

    def _cached(self, images: ImageSet, split: str) -> ImageSet:
        size = len(images) * math.prod(self.spec.shape)
        if self.crop == "random":
            return images
        if size > self.cache_limit:
            if split == "train" and self.cache_limit and ranks.rank() == 0:  # cache_limit=0 asks for that
                log.warning(
                    "Note: the train images take %.0f MiB, more than data.cache_limit = %.0f, so each is decoded again in "
                    "each epoch; %s data.path=... out=FILE writes them once, for data=packed data.path=FILE.",
                    *(size / 2**20, self.cache_limit / 2**20, call("pack")),
                )
            return images
        if ranks.world() > 1 and (size > LARGEST or not torch.cuda.is_available()):  # else they live on each GPU
            return Kept(images, self.spec.shape)
        array = torch.empty(len(images), *self.spec.shape, dtype=torch.uint8)
        with tqdm(total=len(images), desc=f"reading {split} images", leave=False) as bar:
            for block in in_order(images, rows_of(self.spec.shape), self.num_workers):
                array[bar.n : bar.n + len(block)] = block
                bar.update(len(block))
        return Pixels(array)

    def report(self) -> dict[str, object]:
        files = {split: len(paths) for split, paths in self._shares(self.contents).items()}
        folders = {split: shown(folder) for split, folder in self.contents.folders.items()}
        own = {"path": shown(self.path), "files": files, "folders": folders}
        return super().report() | own | {"left_out": self.contents.left_out.facts(), "notes": self.contents.notes}
