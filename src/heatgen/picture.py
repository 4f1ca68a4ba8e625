"""Grids, GIFs and videos of fields: what people would rather see than read."""

import math
import struct
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageOps
from torch import Tensor

from heatgen import check
from heatgen.check import ConfigError

SMALLEST_TILE = 40  # pixels; smaller images are enlarged by a whole factor, each pixel a square
MARGIN = 2
PAPER, INK, FRAME = (250, 250, 248), (24, 74, 140), (160, 160, 160)  # of a cloud
MARK = (220, 0, 140)  # of pixels that are NaN or inf
OPACITY = 0.55  # of one of its dots
BARS = 61  # of a histogram; odd, so that one stands on the middle
MOST_TILES, MOST_POINTS = 36, 4096  # samples in a film


def to_bytes(u: Tensor, truncate: bool = False) -> Tensor:
    """Fields in [0, 1] as bytes: round(255 u), clipped; floor instead with `truncate` (as the original code does).

    ConfigError for NaN and inf, which are no bytes.
    """
    check.finite("images", u, "bytes cannot hold them; look at where they come from")
    scaled = 255 * u.detach().float().clamp(0, 1)
    return (scaled if truncate else scaled.round()).to(torch.uint8).cpu()


def is_points(shape: Sequence[int]) -> bool:
    """Whether fields of shape (C, H, W) are points of R^W: of one channel and one row."""
    return tuple(shape[:2]) == (1, 1)


def dots(points: np.ndarray, side: int, radius: float) -> np.ndarray:
    """Round dots at points (N, 2) of [0, 1]^2, y up: the ink of a sheet, (side, side) bytes; radius in pixels."""
    reach = math.ceil(radius)
    dy, dx = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    disc = dx**2 + dy**2 <= radius**2
    column = (points[:, :1] * side).astype(int) + dx[disc] + reach
    row = ((1 - points[:, 1:]) * side).astype(int) + dy[disc] + reach
    wide = side + 2 * reach + 1
    count = np.bincount((row * wide + column).ravel(), minlength=wide**2).reshape(wide, wide)
    ink = 255 * (1 - (1 - OPACITY) ** np.arange(9))
    output: np.ndarray = ink.astype(np.uint8)[count[reach:-reach, reach:-reach][:side, :side].clip(max=8)]
    return output


def bars(values: np.ndarray, side: int) -> np.ndarray:
    """A histogram of numbers (N,) in [0, 1], its tallest bar nearly as high as the sheet: ink, (side, side) bytes."""
    count, _ = np.histogram(values, BARS, (0, 1))
    height = 0.94 * side * count / max(count.max(), 1)
    of_column = height[np.arange(side) * BARS // side]
    return np.where(np.arange(side, 0, -1)[:, None] <= of_column, 255, 0).astype(np.uint8)


def cloud(u: Tensor, size: int = 320) -> Image.Image:
    """Points (B, 1, 1, d), data in [0, 1], as a square of `size` pixels; those outside are left out.

    d = 1: a histogram, as high as its tallest bar, for points that gather in one place would hide every other shape on a
    scale that they share. d >= 2: a scatter plot of the first two coordinates.
    """
    points = u.detach().double().cpu().flatten(1)[:, :2].numpy()
    inside = points[((points >= 0) & (points <= 1)).all(1)]
    radius = size * min(max(0.25 / max(len(u), 1) ** 0.5, 1 / 220), 1 / 80)
    ink = bars(inside[:, 0], 2 * size) if points.shape[1] == 1 else dots(inside, 2 * size, 2 * radius)
    sheet = ImageOps.colorize(Image.fromarray(ink).reduce(2), PAPER, INK)
    ImageDraw.Draw(sheet).rectangle((0, 0, size - 1, size - 1), outline=FRAME)
    return sheet


def side_by_side(images: Sequence[Image.Image]) -> Image.Image:
    """Pictures in a row, from the left, on paper."""
    width = sum(image.width + 2 * MARGIN for image in images)
    sheet = Image.new("RGB", (width - 2 * MARGIN, max(image.height for image in images)), PAPER)
    x = 0
    for image in images:
        sheet.paste(image, (x, 0))
        x += image.width + 2 * MARGIN
    return sheet


def grid(u: Tensor, columns: int | None = None) -> Image.Image:
    """A batch (B, C, H, W) in [0, 1] as one picture; `columns` a row, about as many as rows if None. Points as a cloud.

    Pixels that are NaN or inf have a colour of their own, MARK; such points are left out.
    """
    if is_points(u.shape[1:]):
        return cloud(u)
    bad = ~u.detach().isfinite().all(1, keepdim=True).cpu()
    tiles = to_bytes(u.masked_fill(bad.to(u.device), 0))
    if tiles.shape[1] not in (1, 3):
        tiles = tiles[:, :1]
    tiles = torch.where(bad, torch.tensor(MARK, dtype=torch.uint8)[:, None, None], tiles.expand(-1, 3, -1, -1))
    factor = max(1, math.ceil(SMALLEST_TILE / max(tiles.shape[-2:])))
    tiles = tiles.repeat_interleave(factor, 2).repeat_interleave(factor, 3)
    count, _, height, width = tiles.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + MARGIN) + MARGIN, columns * (width + MARGIN) + MARGIN, 3), 40, np.uint8)
    for i, tile in enumerate(tiles.permute(0, 2, 3, 1).numpy()):
        y, x = MARGIN + (i // columns) * (height + MARGIN), MARGIN + (i % columns) * (width + MARGIN)
        sheet[y : y + height, x : x + width] = tile
    return Image.fromarray(sheet)


def save_gif(path: Path, frames: Sequence[Image.Image], milliseconds: int = 60, hold: int = 25) -> None:
    """An endless GIF, whatever the file is called; the last frame stays for `hold` more frames."""
    durations = [milliseconds] * (len(frames) - 1) + [milliseconds * (hold + 1)]
    frames[0].save(path, "GIF", save_all=True, append_images=list(frames[1:]), duration=durations, loop=0)


def save_mp4(path: Path, frames: Sequence[Image.Image], fps: int = 15, hold: int = 15) -> None:
    """An H.264 video, whatever the file is called; the last frame stays for `hold` more frames.

    ConfigError where the program that encodes it fails, as on a full disk.
    """
    import imageio_ffmpeg

    width, height = (size - size % 2 for size in frames[0].size)  # the codec wants even sizes
    options = {"fps": fps, "macro_block_size": 2, "quality": 8, "output_params": ["-f", "mp4"]}
    options["ffmpeg_log_level"] = "fatal"  # we say it
    writer = imageio_ffmpeg.write_frames(str(path), (width, height), **options)
    try:
        writer.send(None)
        for frame in [*frames, *[frames[-1]] * hold]:
            writer.send(np.ascontiguousarray(np.asarray(frame)[:height, :width]).tobytes())
        writer.close()
        if not is_whole_mp4(path):  # of what fails at the end the program's exit code alone speaks, which nobody reads
            raise OSError("it is cut off")
    except OSError as error:
        raise ConfigError(f"The video {path} cannot be written; free space or use another disk.") from error


def is_whole_mp4(path: Path) -> bool:
    """Whether the boxes of a video reach to its end, and one of them is the index, which is written last."""
    content, place, names = path.read_bytes() if path.exists() else b"", 0, set()
    while place + 8 <= len(content):
        size, name = struct.unpack_from(">I4s", content, place)
        names.add(name)
        place += max(size, 8)
    return place == len(content) and b"moov" in names


class Film:
    """Collects states on the way back, of the first `tiles` samples and about `length` of the N steps.

    It shows at most 36 images, or 4096 points. Call `begin` before each batch and give `record` to the sampler as on_step.
    """

    def __init__(self, num_steps: int, tiles: int = 36, length: int = 50):
        self.every = max(1, math.ceil(num_steps / length))
        self.tiles = tiles
        self.batches: list[list[Tensor]] = []

    def begin(self) -> None:
        """A new batch of samples follows."""
        self.batches.append([])

    def record(self, k: int, u: Tensor) -> None:
        """Keep state u_k if it is one of those to show."""
        self.tiles = min(self.tiles, MOST_POINTS if is_points(u.shape[1:]) else MOST_TILES)
        kept = sum(len(batch[0]) for batch in self.batches[:-1] if batch)
        if k % self.every == 0 and kept < self.tiles:
            self.batches[-1].append(u[: self.tiles - kept].detach().float().to("cpu", non_blocking=True))

    def states(self, empty: Tensor) -> Tensor:
        """All states, (samples, frames, C, H, W); of no samples, shaped like `empty`, where there were none."""
        if torch.cuda.is_available():
            torch.cuda.synchronize()  # the copies that `record` has begun
        parts = [torch.stack(batch, dim=1) for batch in self.batches if batch]
        return torch.cat(parts) if parts else empty[:, None]
