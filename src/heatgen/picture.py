"""Grids, GIFs and videos of fields: what people would rather see than read."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

SMALLEST_TILE = 40  # pixels; smaller images are enlarged by a whole factor, each pixel a square
MARGIN = 2


def to_bytes(u: Tensor, truncate: bool = False) -> Tensor:
    """Fields in [0, 1] as bytes: round(255 u), clipped; floor instead with `truncate` (as the original code does)."""
    scaled = 255 * u.detach().float().clamp(0, 1)
    return (scaled if truncate else scaled.round()).to(torch.uint8).cpu()


def grid(u: Tensor, columns: int | None = None) -> Image.Image:
    """A batch (B, C, H, W) in [0, 1] as one picture; `columns` a row, about as many as rows if None."""
    tiles = to_bytes(u)
    if tiles.shape[1] not in (1, 3):
        tiles = tiles[:, :1]
    factor = max(1, math.ceil(SMALLEST_TILE / max(tiles.shape[-2:])))
    tiles = tiles.repeat_interleave(factor, 2).repeat_interleave(factor, 3).expand(-1, 3, -1, -1)
    count, _, height, width = tiles.shape
    columns = columns or math.ceil(math.sqrt(count))
    rows = math.ceil(count / columns)
    sheet = np.full((rows * (height + MARGIN) + MARGIN, columns * (width + MARGIN) + MARGIN, 3), 40, np.uint8)
    for i, tile in enumerate(tiles.permute(0, 2, 3, 1).numpy()):
        y, x = MARGIN + (i // columns) * (height + MARGIN), MARGIN + (i % columns) * (width + MARGIN)
        sheet[y : y + height, x : x + width] = tile
    return Image.fromarray(sheet)


def save_gif(path: Path, frames: Sequence[Image.Image], milliseconds: int = 60, hold: int = 25) -> None:
    """An endless GIF; the last frame stays for `hold` more frames."""
    durations = [milliseconds] * (len(frames) - 1) + [milliseconds * (hold + 1)]
    frames[0].save(path, save_all=True, append_images=list(frames[1:]), duration=durations, loop=0)


def save_mp4(path: Path, frames: Sequence[Image.Image], fps: int = 15, hold: int = 15) -> None:
    """An H.264 video; the last frame stays for `hold` more frames."""
    import imageio_ffmpeg

    width, height = (size - size % 2 for size in frames[0].size)  # the codec wants even sizes
    writer = imageio_ffmpeg.write_frames(str(path), (width, height), fps=fps, macro_block_size=2, quality=8)
    writer.send(None)
    for frame in [*frames, *[frames[-1]] * hold]:
        writer.send(np.ascontiguousarray(np.asarray(frame)[:height, :width]).tobytes())
    writer.close()


class Film:
    """Collects states on the way back, of the first `tiles` samples and about `length` of the K steps.

    Call `begin` before each batch and give `see` to the sampler as on_step.
    """

    def __init__(self, num_levels: int, tiles: int = 36, length: int = 50):
        self.every = max(1, math.ceil(num_levels / length))
        self.tiles = min(tiles, 36)
        self.batches: list[list[Tensor]] = []

    def begin(self) -> None:
        """A new batch of samples follows."""
        self.batches.append([])

    def see(self, k: int, u: Tensor) -> None:
        """Keep state u_k if it is one of those to show."""
        kept = sum(len(batch[0]) for batch in self.batches[:-1] if batch)
        if k % self.every == 0 and kept < self.tiles:
            self.batches[-1].append(u[: self.tiles - kept].detach().float().cpu())

    def states(self, empty: Tensor) -> Tensor:
        """All states, (samples, frames, C, H, W); of no samples, shaped like `empty`, where there were none."""
        parts = [torch.stack(batch, dim=1) for batch in self.batches if batch]
        return torch.cat(parts) if parts else empty[:, None]
