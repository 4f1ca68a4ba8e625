"""The numbers of an image file as opaque, upright bytes: depth, transparency, colour spaces and orientation."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageCms, features

from heatgen import check
from heatgen.check import ConfigError

BACKGROUNDS = {"white": (255, 255, 255), "black": (0, 0, 0)}
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}  # by the orientation that a camera writes
BITS, PHOTOMETRIC, SAMPLES = 258, 262, 339  # tags of TIFF
UNSIGNED, SIGNED = 1, 2  # values of the last


def shown(path: object) -> str:
    """A path as a sentence can show it, also where its name holds control characters or is no text."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape", "surrogatepass").decode() for c in str(path))


@dataclass(frozen=True)
class Decoding:
    """How the numbers of a file become bytes.

    Args:
        mode: L (grey) | RGB.
        background: what shows through transparent pixels, (r, g, b). Grey images take it as they take any colour: it is
            put under them first, and grey is the luma of the result.
        value_range: (lo, hi), the numbers of 16- and 32-bit and float images that become 0 and 255; what is beyond is
            clipped. None: 0 and the largest number of the type, where it is known. Images of 8 bits keep their bytes.
    """

    mode: str = "RGB"
    background: tuple[int, int, int] = BACKGROUNDS["white"]
    value_range: tuple[float, float] | None = None


def background_of(value: object) -> tuple[int, int, int]:
    """data.background as (r, g, b). ConfigError unless it is white, black or three bytes."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 3:
        r, g, b = (check.integer("data.background", v, minimum=0) for v in value)
        if max(r, g, b) <= 255:
            return r, g, b
    if isinstance(value, str) and value in BACKGROUNDS:
        return BACKGROUNDS[value]
    raise ConfigError(f"data.background must be white, black or [r,g,b] with numbers from 0 to 255, not {value!r}.")


def value_range_of(value: object) -> tuple[float, float] | None:
    """data.value_range as (lo, hi), None for auto. ConfigError for anything else."""
    if value == "auto":
        return None
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 2:
        low, high = (check.number("data.value_range", v) for v in value)
        if low < high:
            return low, high
    raise ConfigError(f"data.value_range must be auto or [lo,hi] with lo < hi, not {value!r}.")


def decoded(path: object, image: Image.Image, decoding: Decoding) -> Image.Image:
    """The open frame of a file, upright, of mode `decoding.mode`, opaque."""
    raw = str(next(iter(decoder_arguments(image)), ""))  # how the numbers are stored, such as L;4, where that is known
    maximum = largest(image)  # before it is loaded, as what the header says goes then
    image.load()
    key = image.info.get("transparency")
    deep = image.mode in ("I", "F") or image.mode.startswith("I;16") or signed_bytes(image)
    hidden = None if key is None else matches(image, key, raw)
    plain = from_numbers(path, image, maximum, decoding.value_range) if deep else image
    if hidden is not None:
        plain = plain.convert("RGB")
        plain.putalpha(Image.fromarray(np.where(hidden, 0, 255).astype(np.uint8)))
    sheer = key is not None or (plain.palette is not None and plain.palette.mode.endswith("A"))  # the colours of a palette
    if plain.mode in ("RGBA", "RGBa", "LA", "La", "PA") or (plain.mode == "P" and sheer):
        ground = Image.new("RGBA", plain.size, (*decoding.background, 255))
        ground.alpha_composite(plain.convert("RGBA"))
        plain = ground.convert("RGB")
    if plain.mode == "LAB":
        plain = from_lab(path, plain)
    turn = TURNS.get(orientation(image))
    plain = plain.convert(decoding.mode)
    return plain if turn is None else plain.transpose(turn)


def decoder_arguments(image: Image.Image) -> tuple[object, ...]:
    """What Pillow calls the decoder of an image that is not loaded yet with."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ()
    return arguments if isinstance(arguments, tuple) else (arguments,)


def largest(image: Image.Image) -> tuple[float, float] | None:
    """The numbers as Pillow gives them and as the file has them that are white by the type; None where no type says so.

    Pillow scales the numbers of a PGM from its header's largest to 65535, and leaves those of other formats as they are.
    """
    tags = getattr(image, "tag_v2", {})
    if image.format == "PPM" and image.mode == "I":
        stored = decoder_arguments(image)[1:2]
        return 65535, float(stored[0]) if stored and isinstance(stored[0], int) else 65535
    if image.mode.startswith("I;16"):
        bits = tags.get(BITS, (16,))[0] if image.format == "TIFF" else 16
        return (2.0**bits - 1,) * 2
    return (65535, 65535) if image.mode == "I" and image.format == "PNG" else None


def from_numbers(
    path: object, image: Image.Image, maximum: tuple[float, float] | None, value_range: tuple[float, float] | None
) -> Image.Image:
    """A loaded image of 16- or 32-bit integers or floats as grey bytes, round(255 (v - lo) / (hi - lo))."""
    numbers, tags = np.asarray(image), getattr(image, "tag_v2", {})
    if image.format == "TIFF" and image.mode == "I" and tags.get(SAMPLES, (UNSIGNED,))[0] == UNSIGNED:
        numbers = numbers.view(np.uint32)
    if image.mode == "L":
        numbers = numbers.view(np.int8)
    if not np.isfinite(numbers).all():
        raise ConfigError(f"{shown(path)} holds NaN or inf; repair or remove it.")
    if value_range is None and maximum is None:
        kind = "floats" if image.mode == "F" else "integers of 32 bits or with a sign"
        low, high = float(numbers.min()), float(numbers.max())
        raise ConfigError(
            f"{shown(path)} holds {kind} (from {low:g} to {high:g}), of which nothing says what is black and white; "
            "give data.value_range=[lo,hi]."
        )
    scaled, stored = maximum or (1.0, 1.0)
    low, high = value_range or (0.0, stored)
    share = (numbers.astype(np.float64) * (stored / scaled) - low) / (high - low)
    grey = (share.clip(0, 1) * 255).round().astype(np.uint8)
    inverted = image.format == "TIFF" and tags.get(PHOTOMETRIC) == 0  # white is zero, which Pillow leaves to us here
    return Image.fromarray(255 - grey if inverted else grey)


def signed_bytes(image: Image.Image) -> bool:
    """Whether the bytes of a TIFF have a sign, which Pillow overlooks."""
    tags = getattr(image, "tag_v2", {})
    return image.format == "TIFF" and image.mode == "L" and bool(tags.get(SAMPLES, (UNSIGNED,))[0] == SIGNED)


def matches(image: Image.Image, key: object, raw: str) -> np.ndarray | None:
    """Where a loaded image without an alpha channel has the one colour that its header calls transparent, (H, W) bool.

    None where no colour is, or the palette says it.
    """
    numbers = np.asarray(image)
    wanted: object = None
    if image.mode == "RGB" and isinstance(key, tuple) and len(key) == 3:
        wanted = [int(v) >> 8 for v in key] if raw.startswith("RGB;16") else [int(v) for v in key]
    elif isinstance(key, int) and image.mode in ("1", "L"):
        wanted = bool(key) if image.mode == "1" else key * {"L;2": 85, "L;4": 17}.get(raw, 1)
    elif isinstance(key, int) and (image.mode == "I" or image.mode.startswith("I;16")):
        wanted = key
    if wanted is None:
        return None
    same = np.asarray(numbers == np.array(wanted))
    return np.asarray(same.all(-1)) if same.ndim == 3 else same


def from_lab(path: object, image: Image.Image) -> Image.Image:
    """An image in CIE L*a*b* as sRGB."""
    if not features.check("littlecms2"):
        raise ConfigError(f"{shown(path)} is in L*a*b* colours, which this Pillow cannot convert; save it in RGB.")
    lab, rgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    turned = ImageCms.profileToProfile(image, lab, rgb, outputMode="RGB")
    assert turned is not None
    return turned


def orientation(image: Image.Image) -> int:
    """How a camera was held, 1 .. 8; 1 also where its notes are broken, which say nothing of the pixels."""
    try:
        found = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken notes can make Pillow raise anything
        return 1
    return found if isinstance(found, int) else 1
