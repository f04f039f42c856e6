"""Any picture a user has -> 8-bit RGB, upright, on white; what cannot be read whole is an error."""

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from t2ialign.paths import expand

ImageSource = bytes | Path | Image.Image
"""Encoded bytes, a file, or an open picture."""


def open_rgb(source: ImageSource, *, name: str = "") -> Image.Image:
    """The picture as 8-bit RGB: EXIF orientation applied, transparency over white, animations' first frame.

    16-bit, 32-bit and float grey levels are scaled to [0, 255]; colour profiles are not applied. `name` says
    in messages where the picture came from. Raises ValueError if it is missing, truncated, no picture, or
    larger than Pillow's decompression-bomb limit.
    """
    label = ": ".join(str(part) for part in (name, source if isinstance(source, Path) else "") if part)
    try:
        return _on_white(ImageOps.exif_transpose(_load(source)))
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever the broken bytes lead them to
        raise ValueError(
            f"{label or 'image'}: got {_reason(error)}; expected a whole picture (JPEG, PNG, WebP, ...); "
            "replace the file or drop its row"
        ) from error


def picture_of(where: str, value: Any, base: Path) -> ImageSource:
    """What a table's cell holds: bytes, {"bytes", "path"}, a path from `base`, an address, an open picture.

    `where` says in messages which cell. An address is fetched. Raises ValueError for anything else.
    """
    if isinstance(value, dict):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, str) and "://" in value:
        return _fetched(where, value)
    if isinstance(value, str | Path) and str(value):
        return base / expand(value)
    if isinstance(value, bytes | Image.Image):
        return value
    raise ValueError(
        f"{where}: got {value!r}; expected a path, bytes or a picture; drop the row or fill it in"
    )


def _load(source: ImageSource) -> Image.Image:
    """The picture with its pixels in memory and its file closed."""
    if isinstance(source, Image.Image):
        source.load()
        return source
    if not isinstance(source, Path) and not source:
        raise ValueError("zero bytes")
    if isinstance(source, Path) and source.is_file() and source.stat().st_size == 0:
        raise ValueError("zero bytes")
    with Image.open(source if isinstance(source, Path) else io.BytesIO(source)) as image:
        image.load()
        return image


def _on_white(image: Image.Image) -> Image.Image:
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_grey_levels(np.asarray(image))).convert("RGB")
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
    return np.rint(values.astype(np.float64) * (255 / top)).astype(np.uint8)


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file"
    if isinstance(error, Image.UnidentifiedImageError):
        return "bytes of no known picture format"
    return " ".join(str(error).split()).rstrip(".") or type(error).__name__


def _fetched(where: str, address: str) -> bytes:
    """Bytes of what `datasets` left behind an address (hf://, zip://, https://)."""
    import fsspec

    try:
        with fsspec.open(address, "rb") as file:
            return file.read()
    except (OSError, ValueError, ImportError, KeyError) as error:
        raise ValueError(
            f"{where}: got {address}, which does not open ({error}); check the network"
        ) from error
