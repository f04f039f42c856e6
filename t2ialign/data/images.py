"""Any image of a user -> 8-bit RGB, upright, on white; one that cannot be read whole is an error."""

import importlib
import io
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from stat import S_ISDIR, S_ISREG
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from t2ialign.data.located import located
from t2ialign.data.remote import Remote
from t2ialign.io.messages import quoted

ImageSource = bytes | Path | Image.Image | Remote
"""Encoded bytes, a file, an open image, or an address to fetch it from."""

FORMATS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "TIFF": (".tif", ".tiff"),
    "AVIF": (".avif",),
    "HEIF": (".heic", ".heif", ".hif"),
    "JPEG2000": (".jp2", ".j2k"),
    "PPM": (".ppm", ".pgm", ".pbm"),
    "TGA": (".tga",),
}
"""Formats that are opened, as Pillow calls them, and the endings of their files."""
ENDINGS = tuple(ending for endings in FORMATS.values() for ending in endings)
"""Endings of files that are taken for images."""
NEEDS = {
    **dict.fromkeys((b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"), "HEIF"),
    **dict.fromkeys((b"avif", b"avis"), "AVIF"),
}
"""Brand at the start of a file -> its format."""
INSTALL = {"HEIF": "pip install pillow-heif", "AVIF": "pip install 'pillow>=11.3'"}
"""The package that lets Pillow read a format that it may lack."""
ROWS = 1 << 22
"""Pixels that are laid on white at a time: what is made on the way stays small however large the image is."""
DRAFTED = ("JPEG", "MPO")
"""Formats that Pillow can decode at a half, a quarter or an eighth of their size."""
LONGEST_PATH = 4096
"""Characters; a longer text, such as an image in base64, is no path on any system."""

Admit = Callable[[int, int], tuple[int, int] | None]
"""Called with (height, width) before an image is decoded -> the least size that will do, None for all of it.

What it raises goes through if it is an `OverBudget`.
"""


class OverBudget(Exception):
    """An image has more pixels than there is room for now; it was not decoded."""


def open_rgb(source: ImageSource, *, name: str = "", admit: Admit | None = None) -> Image.Image:
    """The image as 8-bit RGB: EXIF orientation applied, transparency over white, animations' first frame.

    16-bit, 32-bit and float grey levels are scaled to [0, 255]; colour profiles are not applied. `name` says
    in messages where the image came from. Where `admit` names a size, a JPEG is decoded at a half, a
    quarter or an eighth, as long as both sides stay no smaller than that. Raises ValueError if it is
    missing, truncated, no image, of none of the `FORMATS`, larger than Pillow's decompression-bomb limit,
    or at an address that gives none.
    """
    place = source if isinstance(source, Path | Remote) else ""
    label = ": ".join(str(part) for part in (name, place) if part)
    if isinstance(source, Remote):
        try:
            source = source.fetch()
        except ValueError as error:
            raise ValueError(f"{name}: {error}" if name else str(error)) from error
    try:
        if isinstance(source, Image.Image):
            return _on_white(ImageOps.exif_transpose(_load(source, admit)))
        image = _load(source, admit)
        ImageOps.exif_transpose(image, in_place=True)  # ours alone, so that there need be no copy
        return _on_white(image)
    except (MemoryError, OverBudget):
        raise
    except Exception as error:  # decoders raise whatever the broken bytes lead them to
        raise ValueError(
            f"{label or 'image'}: got {_reason(error)}; expected a whole image (JPEG, PNG, WebP, ...); "
            "replace the file or drop its row"
        ) from error


def levels(image: Image.Image) -> np.ndarray:
    """An RGB image -> (H, W, 3) in uint8, by bands of rows: Pillow's own way holds three copies at once."""
    height = max(1, ROWS // image.width)
    if height >= image.height:
        return np.array(image)
    whole = np.empty((image.height, image.width, 3), np.uint8)
    for top in range(0, image.height, height):
        bottom = min(top + height, image.height)
        whole[top:bottom] = np.asarray(image.crop((0, top, image.width, bottom)))
    return whole


def image_of(where: str, value: Any, base: Path) -> ImageSource:
    """What a table's cell holds: bytes, {"bytes", "path"}, a path from `base`, an address, an open image.

    `where` says in messages which cell. An address is fetched when the image is opened; a path may be
    written in any way that `located` knows. Raises ValueError for anything else, and one that stands there
    instead of an image: what the reader of a folder found wrong with it.
    """
    if isinstance(value, ValueError):
        raise value
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, str | Path) and 0 < len(text := str(value).strip()) <= LONGEST_PATH:
        if "://" in text and not text.lower().startswith("file://"):
            return Remote(text)
        return located(where, str(value), base)
    if isinstance(value, bytes | Image.Image):
        return value
    raise ValueError(
        f"{where}: got {quoted(value)}; expected a path, bytes or an image; drop the row or fill it in"
    )


def _load(source: bytes | Path | Image.Image, admit: Admit | None) -> Image.Image:
    """The image with its pixels in memory and its file closed."""
    if isinstance(source, Image.Image):
        if admit is not None:
            admit(source.height, source.width)
        source.load()
        return source
    if not isinstance(source, Path) and not source:
        raise ValueError("zero bytes")
    if isinstance(source, Path):
        stat = source.stat()
        if not S_ISREG(stat.st_mode):  # a pipe waits for ever, a device may never end
            kind = "a folder" if S_ISDIR(stat.st_mode) else "a device, pipe or socket"
            raise ValueError(f"{kind}, which is no file")
        if stat.st_size == 0:
            raise ValueError("zero bytes")
    try:
        with Image.open(
            source if isinstance(source, Path) else io.BytesIO(source), formats=_formats()
        ) as image:
            least = None if admit is None else admit(image.height, image.width)
            if least is not None and image.format in DRAFTED:
                image.draft(None, (least[1], least[0]))
            image.load()
            return image
    except Image.UnidentifiedImageError as error:
        if needed := _needed(source):
            raise ValueError(needed) from error
        raise


@cache
def _formats() -> tuple[str, ...]:
    """The members of `FORMATS` that Pillow can open here; pillow-heif is used if it is installed."""
    Image.init()
    with suppress(ImportError):
        importlib.import_module("pillow_heif").register_heif_opener()
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _needed(source: bytes | Path) -> str:
    """The package to install for an image of a known format that Pillow does not open here; "" for others."""
    if isinstance(source, Path):
        with source.open("rb") as file:
            head = file.read(12)
    else:
        head = source[:12]
    form = NEEDS.get(head[8:12], "") if head[4:8] == b"ftyp" else ""
    if not form or form in _formats():
        return ""
    return f"{form}, which Pillow does not open here ({INSTALL[form]} and run again)"


def _on_white(image: Image.Image) -> Image.Image:
    """Convert in bands of rows, since each pixel depends on itself alone; plain RGB is returned as it is."""
    if image.mode == "F" or image.mode.startswith("I"):
        image = Image.fromarray(_grey_levels(np.asarray(image)))
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    height = max(1, ROWS // image.width)
    if height >= image.height:
        return _band_on_white(image)
    whole = Image.new("RGB", image.size)
    for top in range(0, image.height, height):
        band = image.crop((0, top, image.width, min(top + height, image.height)))
        whole.paste(_band_on_white(band), (0, top))
    return whole


def _band_on_white(image: Image.Image) -> Image.Image:
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _grey_levels(values: np.ndarray) -> np.ndarray:
    """Deep grey -> uint8: integers are 16-bit levels, floats span [0, 1] or, if any is larger, [0, 255]."""
    low, high = float(values.min()), float(values.max())
    top = 65535.0
    if values.dtype.kind == "f":
        top = 1.0 if high <= 1 else 255.0
    if not (low >= 0 and high <= top):  # written so that NaN fails too
        raise ValueError(f"grey values from {low:g} to {high:g} where at most {top:g} has a meaning")
    levels = np.empty(values.shape, np.uint8)
    height = max(1, ROWS // values.shape[1])
    for start in range(0, len(values), height):
        rows = slice(start, start + height)
        levels[rows] = np.rint(values[rows].astype(np.float64) * (255 / top))
    return levels


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "bytes of no known image format"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__
