"""Image files as bytes: depth, transparency, colours, orientation, frames, and one sentence for what cannot be read."""

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from heatgen.check import ConfigError
from heatgen.data.image_decoding import Decoding, background_of, value_range_of
from heatgen.data.image_files import ImageFiles, count_frames, kinds, suffixes


def read(path: Path, channels: int = 3, frame: int = 0, size: tuple[int, int] = (4, 4), **decoding: object) -> Tensor:
    """A frame of a file as (C, H, W) bytes, where no warning is let through."""
    decode = Decoding("L" if channels == 1 else "RGB", **decoding)  # type: ignore[arg-type]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return ImageFiles([path], (channels, *size), "none", "centre", min(size), decode, [frame]).pixels([0])[0]


def sentence(path: Path, **decoding: object) -> str:
    """What is said of a file that is refused."""
    with pytest.raises(ConfigError) as caught:
        read(path, **decoding)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    return str(caught.value)


def png(path: Path, rows: bytes, bits: int, colour: int, transparent: bytes = b"", side: int = 4) -> Path:
    """A PNG of these rows (each after a byte 0), with a tRNS chunk where one is given."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", side, side, bits, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", head), chunk(b"tRNS", transparent) if transparent else b"", chunk(b"IDAT", zlib.compress(rows))]
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts) + chunk(b"IEND", b""))
    return path


def tiff(path: Path, array: np.ndarray, sample_format: int, photometric: int = 1, bits: int | None = None) -> Path:
    """A grey TIFF of little-endian numbers, (H, W); sample_format 1: without, 2: with a sign, 3: floats."""
    bits, pixels = bits or array.itemsize * 8, array.tobytes()
    if bits == 12:
        pairs = array.astype(np.uint32).reshape(-1, 2)
        pixels = b"".join(int(a << 12 | b).to_bytes(3, "big") for a, b in pairs)
    height, width = array.shape
    values = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(pixels)}
    tags = values | {339: sample_format}
    ifd = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    ifd = ifd.replace(struct.pack("<HHII", 258, 4, 1, bits), struct.pack("<HHII", 258, 3, 1, bits))
    path.write_bytes(b"II*\0" + struct.pack("<I", 8 + len(pixels)) + pixels + ifd + bytes(4))
    return path


# transparency --------------------------------------------------------------------------------------------------------------

HIDDEN, SEEN, BACKGROUND = (201, 11, 99), (10, 200, 30), (1, 2, 250)


def transparent(folder: Path, how: str) -> Path:
    """A picture whose left half is transparent over HIDDEN (or a grey that stands for it); the right half is SEEN."""
    alpha = np.zeros((4, 4), np.uint8)
    alpha[:, 2:] = 255
    rgb = np.where(alpha[..., None] > 0, SEEN, HIDDEN).astype(np.uint8)
    rgba, grey = np.dstack([rgb, alpha]), np.where(alpha > 0, 30, 99).astype(np.uint8)
    path = folder / f"{how}.{'png' if how in ('LA', 'RGBA') else how.split('-')[0]}"
    if how == "LA":
        Image.fromarray(np.dstack([grey, alpha])).save(path)
    elif how == "gif-P" or how == "png-P":
        image = Image.fromarray((alpha > 0).astype(np.uint8)).convert("P")
        image.putpalette([*HIDDEN, *SEEN])
        image.save(path, transparency=0)
    elif how == "png-PA":
        image = Image.fromarray((alpha > 0).astype(np.uint8)).convert("P")
        image.putpalette([*HIDDEN, *SEEN])
        image.save(path, transparency=bytes([0, 255]))
    elif how == "png-RGB":
        Image.fromarray(rgb).save(path, transparency=HIDDEN)
    elif how == "tif-RGBa":
        image = Image.fromarray(rgba).convert("RGBa")
        Image.frombytes("RGBA", (4, 4), image.tobytes()).save(path, tiffinfo={338: 1})
    else:
        options = {"lossless": True} if path.suffix == ".webp" else {"quality": 100} if path.suffix == ".avif" else {}
        Image.fromarray(rgba).save(path, **options)
    return path


@pytest.mark.parametrize(
    "how", ["RGBA", "LA", "png-P", "png-PA", "png-RGB", "gif-P", "webp", "tga", "jp2", "avif", "tif", "tif-RGBa", "ico"]
)
def test_the_background_shows_where_a_picture_is_transparent_and_its_hidden_colour_never_does(
    tmp_path: Path, how: str
) -> None:
    if how == "avif" and "AVIF" not in kinds():
        pytest.skip("this Pillow has no AVIF")
    path = transparent(tmp_path, how)
    u = read(path, background=BACKGROUND)
    tolerance = 3 if how == "avif" else 0
    expected = torch.tensor([30] * 3 if how == "LA" else SEEN)[:, None].expand(3, 4)
    assert (u[:, :, 3].int() - expected).abs().max() <= tolerance
    assert (u[:, :, 0].int() - torch.tensor(BACKGROUND)[:, None]).abs().max() <= tolerance
    grey = read(path, 1, background=BACKGROUND)
    assert abs(int(grey[0, 0, 0]) - round(np.dot(BACKGROUND, (0.299, 0.587, 0.114)))) <= 1 + tolerance
    assert int(read(path, 1)[0, 0, 0]) >= 255 - tolerance


@pytest.mark.parametrize(("bits", "key"), [(1, 1), (2, 2), (4, 9), (8, 77), (16, 30000)])
def test_a_grey_that_a_png_calls_transparent_shows_the_background_at_every_depth(
    tmp_path: Path, bits: int, key: int
) -> None:
    other = {1: 0, 2: 3, 4: 10, 8: 78, 16: 30001}[bits]
    row = b"".join(struct.pack(">H", v) for v in (key, key, other, other)) if bits == 16 else b""
    if bits < 16:
        packed = int("".join(f"{v:0{bits}b}" for v in (key, key, other, other)).ljust(-(-4 * bits // 8) * 8, "0"), 2)
        row = packed.to_bytes(-(-4 * bits // 8), "big")
    u = read(png(tmp_path / "key.png", (b"\0" + row) * 4, bits, 0, struct.pack(">H", key)), background=BACKGROUND)
    assert u[:, 0, 0].tolist() == list(BACKGROUND)
    assert u[:, 0, 3].tolist() == [round(other / (2**bits - 1) * 255)] * 3


def test_opaque_pictures_with_an_alpha_channel_keep_every_bit_and_half_transparent_ones_are_blended(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    for alpha in (255, 128):
        Image.fromarray(np.dstack([rgb, np.full((4, 4), alpha, np.uint8)])).save(tmp_path / f"{alpha}.png")
    assert np.array_equal(read(tmp_path / "255.png").permute(1, 2, 0), rgb)
    expected = (rgb * 128.0 + 255 * 127.0) / 255
    assert np.abs(read(tmp_path / "128.png").permute(1, 2, 0).numpy() - expected).max() <= 1


@pytest.mark.parametrize("value", ["grey", [1, 2], [0, 0, 256], [0, 0, -1], 7, None])
def test_a_background_that_is_no_colour_is_refused_by_its_key(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^data\.background must be"):
        background_of(value)
    assert background_of("black") == (0, 0, 0) and background_of([1, 2, 3]) == (1, 2, 3)


# depth ---------------------------------------------------------------------------------------------------------------------

RAMP = np.linspace(0, 1, 16).reshape(4, 4)


def scaled(u: Tensor) -> np.ndarray:
    return np.asarray(u[0]) / 255


@pytest.mark.parametrize("maximum", [1, 15, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("plain", [False, True])
def test_a_pgm_is_scaled_by_the_largest_number_that_its_header_gives(tmp_path: Path, maximum: int, plain: bool) -> None:
    numbers, path = (RAMP * maximum).round().astype(int), tmp_path / "a.pgm"
    head = f"{'P2' if plain else 'P5'}\n4 4\n{maximum}\n".encode()
    body = " ".join(map(str, numbers.flat)).encode() if plain else numbers.astype(">u2" if maximum > 255 else "u1").tobytes()
    path.write_bytes(head + body)
    assert np.abs(scaled(read(path, 1)) - numbers / maximum).max() <= 0.51 / 255
    if maximum > 255:
        half = scaled(read(path, 1, value_range=(0.0, maximum / 2)))
        assert np.abs(half - (numbers / (maximum / 2)).clip(0, 1)).max() <= 0.51 / 255


def test_sixteen_bits_are_scaled_by_their_full_range_in_every_format(tmp_path: Path) -> None:
    numbers = (RAMP * 65535).round().astype(np.uint16)
    paths = [tiff(tmp_path / "a.tif", numbers, 1)]
    for name in ("b.png", "c.jp2"):
        Image.fromarray(numbers).save(tmp_path / name)
        paths.append(tmp_path / name)
    for path in paths:
        assert np.abs(scaled(read(path, 1)) - RAMP).max() <= 0.51 / 255, path
    colours = np.stack([numbers, numbers[::-1], numbers.T], -1)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in colours)
    rgb = read(png(tmp_path / "rgb.png", rows, 16, 2)).permute(1, 2, 0).numpy()
    assert np.abs(rgb / 255 - colours / 65535).max() <= 1 / 255
    white_is_zero = read(tiff(tmp_path / "d.tif", numbers, 1, photometric=0), 1)
    assert np.abs(scaled(white_is_zero) - (1 - RAMP)).max() <= 0.51 / 255
    twelve = read(tiff(tmp_path / "e.tif", (RAMP * 4095).round().astype(np.uint16), 1, bits=12), 1)
    assert np.abs(scaled(twelve) - RAMP).max() <= 0.51 / 255


@pytest.mark.parametrize(
    ("dtype", "sample_format", "low", "high"),
    [
        ("<i4", 2, -1000, 100_000),
        ("<u4", 1, 0, 4_000_000_000),
        ("<i2", 2, -1024, 3071),
        ("<i1", 2, -128, 127),
        ("<f4", 3, -0.5, 2.5),
    ],
)
def test_numbers_whose_black_and_white_nothing_says_are_refused_until_the_user_says_it(
    tmp_path: Path, dtype: str, sample_format: int, low: float, high: float
) -> None:
    numbers = (low + RAMP * (high - low)).astype(dtype)
    path = tiff(tmp_path / "deep.tif", numbers, sample_format)
    said = sentence(path)
    assert said.endswith("give data.value_range=[lo,hi].") and f"(from {low:g} to {high:g})" in said
    assert np.abs(scaled(read(path, 1, value_range=(low, high))) - RAMP).max() <= 1.1 / 255
    assert read(path, 1, value_range=(high, high + 1)).flatten()[:-1].max() == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_float_image_that_holds_what_is_not_finite_is_named(tmp_path: Path, bad: float) -> None:
    numbers = RAMP.astype("<f4")
    numbers[1, 2] = bad
    assert "holds NaN or inf" in sentence(tiff(tmp_path / "bad.tif", numbers, 3), value_range=(0.0, 1.0))


def test_bytes_are_never_rescaled(tmp_path: Path) -> None:
    bytes_ = np.arange(16, dtype=np.uint8).reshape(4, 4)
    Image.fromarray(bytes_).save(tmp_path / "a.png")
    assert np.array_equal(read(tmp_path / "a.png", 1, value_range=(0.0, 7.0))[0], bytes_)


@pytest.mark.parametrize("value", ["full", [1], [1, 1], [2, 1], [0, "x"], None, True])
def test_a_range_that_is_none_is_refused_by_its_key(value: object) -> None:
    with pytest.raises(ConfigError, match=r"^data\.value_range must be"):
        value_range_of(value)
    assert value_range_of("auto") is None and value_range_of([0, 4095]) == (0.0, 4095.0)


# colours, orientation, frames ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "suffix"), [("CMYK", "jpg"), ("CMYK", "tif"), ("YCbCr", "jpg"), ("1", "png"), ("LAB", "tif")]
)
def test_other_colours_become_those_they_show(tmp_path: Path, mode: str, suffix: str) -> None:
    path, colour = tmp_path / f"a.{suffix}", (255, 255, 255) if mode == "1" else (190, 60, 90)
    image = Image.new("RGB", (4, 4), colour)
    if mode == "LAB":  # 50 % grey-blue, by its own numbers: L* = 53.6 %, a* = b* = 0 is grey 128
        image, colour = Image.new("LAB", (4, 4), (137, 128, 128)), (128, 128, 128)
    image.convert(mode).save(path, **({"quality": 100} if suffix == "jpg" else {}))
    u = read(path)
    assert (u.int() - torch.tensor(colour)[:, None, None]).abs().max() <= 4
    assert abs(int(read(path, 1)[0, 0, 0]) - np.dot(colour, (0.299, 0.587, 0.114))) <= 4


CORNERS = np.array([[0, 80], [160, 240]], np.uint8)
UPRIGHT = {  # the stored pixels that show CORNERS, by orientation (CIPA DC-008, tag 274)
    1: CORNERS,
    2: CORNERS[:, ::-1],
    3: CORNERS[::-1, ::-1],
    4: CORNERS[::-1],
    5: CORNERS.T,
    6: np.rot90(CORNERS),
    7: CORNERS[::-1, ::-1].T,
    8: np.rot90(CORNERS, -1),
}


@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("turn", list(UPRIGHT))
def test_a_picture_is_upright_also_where_the_notes_of_its_camera_are_broken(tmp_path: Path, turn: int, broken: bool) -> None:
    exif = Image.Exif()
    exif[274] = turn
    content = exif.tobytes()
    if broken:  # a second entry, whose value lies beyond the end
        first = struct.pack(">HHIHH", 274, 3, 1, turn, 0)
        content = (
            b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", 2) + first + struct.pack(">HHII", 301, 3, 9, 9999) + bytes(4)
        )
    Image.fromarray(np.ascontiguousarray(UPRIGHT[turn])).save(tmp_path / "a.png", exif=content)
    assert np.array_equal(read(tmp_path / "a.png", 1, size=(2, 2))[0], CORNERS)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif", "avif"])
def test_every_frame_of_an_animation_or_page_of_a_file_can_be_read(tmp_path: Path, suffix: str) -> None:
    if suffix == "avif" and "AVIF" not in kinds():
        pytest.skip("this Pillow has no AVIF")
    path, greys = tmp_path / f"a.{suffix}", (0, 100, 200)
    first, *rest = [Image.new("RGB", (16, 16), (grey, grey, grey)) for grey in greys]
    options = {"lossless": True} if suffix == "webp" else {"quality": 100} if suffix == "avif" else {}
    first.save(path, save_all=True, append_images=rest, **options)
    assert count_frames(path) == 3
    found = [int(read(path, 1, frame, (16, 16))[0, 8, 8]) for frame in range(3)]
    assert np.abs(np.subtract(found, greys)).max() <= 2
    files = ImageFiles([path] * 3, (1, 16, 16), "none", "centre", 16, frames=range(3))
    assert files.pixels([2, 0, 1])[:, 0, 8, 8].tolist() == [found[2], found[0], found[1]]


def test_what_pillow_decodes_is_read_and_drawings_and_containers_are_not() -> None:
    read_too = {".gif", ".jfif", ".webp", ".jp2", ".tga", ".qoi", ".ppm", ".pfm", ".bmp", ".tif", ".png", ".jpg", ".mpo"}
    assert read_too <= suffixes()
    assert not {".eps", ".ps", ".wmf", ".emf", ".h5", ".mpg", ".grib", ".fits", ".pdf", ".svg"} & suffixes()


# what cannot be read -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("side", "level"), [(10_000, "warning"), (20_000, "error")])
def test_a_small_file_that_unpacks_to_more_than_is_read_is_named(tmp_path: Path, side: int, level: str) -> None:
    path = png(tmp_path / f"{level}.png", b"", 1, 0, side=side)
    assert f"unpacks to {side * side:,} pixels, more than the 89,478,485 that are read" in sentence(path)


def test_a_drawing_named_as_a_picture_is_never_run(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 4\n%%EndComments\nshowpage\n")
    assert "is not a complete image (its format is not known)" in sentence(path)


def test_a_picture_that_its_shorter_side_would_blow_up_is_named(tmp_path: Path) -> None:
    Image.new("L", (1, 30_000)).save(tmp_path / "line.png")
    files = ImageFiles([tmp_path / "line.png"], (1, 64, 64), "shorter", "centre", 64)
    with pytest.raises(ConfigError, match=r"line\.png has 1x30000 pixels, too narrow"):
        files.pixels([0])


def test_whatever_pillow_raises_names_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a b\n.png"
    Image.new("L", (4, 4)).save(path)
    for error in (
        struct.error("bad\nline"),
        AssertionError(),
        MemoryError(),
        RecursionError("deep"),
        KeyError(3),
        EOFError(),
    ):

        def fails(*_: object, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr(Image.Image, "convert", fails)
        with pytest.raises(ConfigError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{tmp_path}/a b\\n.png is not a complete image (") and "\n" not in str(
            caught.value
        )
