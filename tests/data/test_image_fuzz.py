"""Damaged image files: each is read, or refused in one sentence that names it; nothing else is raised, and nothing hangs.

HEATGEN_FUZZ=6000 pytest -s tests/data/test_image_fuzz.py tries that many files in place of a few, and prints the counts.
"""

import io
import os
import random
import struct
import time
import warnings
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from heatgen.check import ConfigError
from heatgen.data.image_decoding import Decoding
from heatgen.data.image_files import ImageFiles, count_frames, kinds

COUNT = int(os.environ.get("HEATGEN_FUZZ", "200"))
SECONDS = 20  # a file that takes longer hangs
EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def whole_files() -> list[tuple[str, bytes]]:
    """Sound files to damage, (suffix, content): many formats, modes, compressions, animations and notes of cameras."""
    source = np.random.default_rng(0)
    rgb = Image.fromarray(source.integers(0, 256, (24, 20, 3), dtype=np.uint8))
    rgba = Image.fromarray(source.integers(0, 256, (24, 20, 4), dtype=np.uint8))
    grey, deep = rgb.convert("L"), Image.fromarray(source.integers(0, 65536, (24, 20), dtype=np.uint16))
    floats, palette = Image.fromarray(source.random((24, 20), dtype=np.float32)), rgb.quantize(16)
    exif = Image.Exif()
    exif[274], exif[271], exif[282] = 6, "a camera", 72.0
    frames = {"save_all": True, "append_images": [rgba.rotate(90, expand=False), rgba.rotate(180)]}
    wanted = [
        *(("png", image, {}) for image in (rgb, rgba, grey, deep, palette, rgb.convert("1"), rgb.convert("LA"))),
        *[("png", palette, {"transparency": 3}), ("png", rgb, {"exif": exif}), ("png", rgba, frames)],
        *(("jpg", image, {"exif": exif}) for image in (rgb, grey, rgb.convert("CMYK"))),
        *[("jpg", rgb, {"progressive": True}), ("gif", palette, {}), ("gif", rgba, frames)],
        *[("webp", rgb, {"exif": exif}), ("webp", rgba, {"lossless": True}), ("webp", rgba, frames)],
        *(("tif", rgb, {"compression": c}) for c in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")),
        *[
            ("tif", deep, {}),
            ("tif", floats, {}),
            ("tif", rgb.convert("1"), {"compression": "group4"}),
            ("tif", rgba, frames),
        ],
        *(("bmp", image, {}) for image in (rgb, rgba, palette, rgb.convert("1"))),
        *[("ppm", rgb, {}), ("pgm", grey, {}), ("pgm", deep.convert("I"), {}), ("pfm", floats, {})],
        *[("tga", rgba, {"compression": "tga_rle"}), ("tga", palette, {}), ("jp2", rgba, {}), ("jp2", deep, {})],
        *[
            ("avif", rgba, {}),
            ("ico", rgba, {}),
            ("pcx", palette, {}),
            ("sgi", rgb, {}),
            ("dds", rgba, {}),
            ("qoi", rgba, {}),
        ],
    ]
    formats, files = Image.registered_extensions(), []
    for suffix, image, options in wanted:
        if formats.get(f".{suffix}") in kinds() and formats[f".{suffix}"] in Image.SAVE:
            buffer = io.BytesIO()
            image.save(buffer, formats[f".{suffix}"], **options)
            files.append((suffix, buffer.getvalue()))
    return files


def truncated(content: bytearray, rng: random.Random, _: bytes) -> bytearray:
    return content[: rng.randrange(len(content))]


def flipped(content: bytearray, rng: random.Random, _: bytes) -> bytearray:
    for _ in range(rng.choice((1, 1, 2, 5, 40))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return content


def spliced(content: bytearray, rng: random.Random, other: bytes) -> bytearray:
    here, there = rng.randrange(len(content)), rng.randrange(len(other))
    return content[:here] + other[there : there + rng.choice((4, 60, 10_000))] + content[here + rng.choice((0, 4, 60)) :]


def zeroed(content: bytearray, rng: random.Random, _: bytes) -> bytearray:
    start, length = rng.randrange(len(content)), rng.choice((4, 16, 64, 600))
    content[start : start + length] = bytes([rng.choice((0, 255))]) * len(content[start : start + length])
    return content


def edited(content: bytearray, rng: random.Random, _: bytes) -> bytearray:
    """A number in the header is an extreme one."""
    for _ in range(rng.choice((1, 1, 2, 4))):
        kind, value = rng.choice((">H", "<H", ">I", "<I", "B")), rng.choice(EXTREMES)
        size = struct.calcsize(kind)
        start = rng.randrange(max(1, min(len(content), 160) - size))
        content[start : start + size] = struct.pack(kind, value & (256**size - 1))
    return content


def summed(content: bytearray) -> bytearray:
    """The same with the check sums of a PNG made right, so that the damage is read."""
    place = 8
    while content[:4] == b"\x89PNG" and place + 12 <= len(content):
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        if end + 4 <= len(content):
            content[end : end + 4] = struct.pack(">I", zlib.crc32(bytes(content[place + 4 : end])))
        place = end + 4
    return content


DAMAGES: tuple[Callable[[bytearray, random.Random, bytes], bytearray], ...] = (truncated, flipped, spliced, zeroed, edited)


def outcome(path: Path) -> str:
    """What comes of a file: read | refused; anything else is raised."""
    try:
        last = count_frames(path) - 1
        files = ImageFiles(
            [path] * 2, (3, 16, 16), "shorter", "centre", 16, Decoding(value_range=(0.0, 1.0)), [0, min(last, 5)]
        )
        assert files.pixels([0, 1]).shape == (2, 3, 16, 16)
    except ConfigError as error:
        assert str(error).startswith(str(path)) and "\n" not in str(error), error
        return "refused"
    return "read"


def test_a_damaged_file_is_read_or_refused_by_its_name(tmp_path: Path) -> None:
    whole, rng, found, slowest = whole_files(), random.Random(0), Counter[tuple[str, str]](), 0.0
    assert len({suffix for suffix, _ in whole}) >= 8
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for suffix, content in whole:
            path = tmp_path / f"whole.{suffix}"
            path.write_bytes(content)
            assert outcome(path) == "read", suffix
        for i in range(COUNT):
            suffix, content = whole[i % len(whole)]
            damaged = rng.choice(DAMAGES)(bytearray(content), rng, rng.choice(whole)[1])
            path = tmp_path / f"{i}.{suffix}"
            path.write_bytes(summed(damaged) if rng.random() < 0.7 else damaged)
            start = time.monotonic()
            found[suffix, outcome(path)] += 1
            slowest = max(slowest, time.monotonic() - start)
            assert slowest < SECONDS, path
            path.unlink()
    read, refused = (sum(n for (_, what), n in found.items() if what == kind) for kind in ("read", "refused"))
    print(f"{COUNT} damaged files in {len({s for s, _ in found})} formats: {read} read, {refused} refused, 0 else")
    print(f"slowest {slowest:.2f} s; {dict(sorted(found.items()))}")
    assert read + refused == COUNT and min(read, refused) > COUNT / 10
