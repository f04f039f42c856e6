"""Images and prompts as people have them: one or several, as paths, PIL images, arrays or tensors.

A file or a PIL image becomes 8-bit RGB, upright by its EXIF orientation and on white where it is transparent;
an array too, its floats rounded to 8 bits. A tensor stays what it is, and gradients reach it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from rewards.checks import SLACK, check_images

ImageLike = str | PathLike[str] | Image.Image | np.ndarray | Tensor
"""An image: a path, a PIL image, an array (H, W, 3) of uint8 or of floats in [0, 1], a tensor (3, H, W)."""
Images = ImageLike | Iterable[ImageLike]
"""One image or several; an array (B, H, W, 3) and a tensor (B, 3, H, W) are several."""
Item = Image.Image | Tensor
"""An image that was read: RGB, or a float tensor (3, H, W) in [0, 1]."""

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF", "HEIF", "JPEG2000", "PPM", "TGA")
"""Raster formats that are opened, whatever a file's name says: others, such as EPS, would run a program."""
KINDS = (
    "a path, a PIL image, an array (H, W, 3) of uint8 or of floats in [0, 1], a float tensor (3, H, W) in "
    "[0, 1], or a list of these"
)


def listed(images: Images) -> list[ImageLike]:
    """One image or several -> a list. Raises ValueError for none and for what is no image."""
    if isinstance(images, np.ndarray | Tensor):
        if images.ndim not in (3, 4):
            raise ValueError(f"got {_described(images)}; expected {KINDS}; reshape it")
        items: list[ImageLike] = [images] if images.ndim == 3 else list(images)
    elif isinstance(images, str | PathLike | Image.Image):
        items = [images]
    elif isinstance(images, Iterable) and not isinstance(images, Mapping | bytes):
        items = list(images)
    else:
        raise ValueError(f"got {_described(images)} as images; expected {KINDS}; convert it")
    if not items:
        raise ValueError("got no images; expected at least one; skip empty lists")
    for number, image in enumerate(items):
        if isinstance(image, str | PathLike) and not Path(image).expanduser().is_file():
            kind = "a folder" if Path(image).expanduser().is_dir() else "no such file"
            raise ValueError(
                f"{label(image, number, len(items))}: got {kind}; expected an image file; correct the path"
            )
    return items


def matched(prompts: str | Sequence[str], rows: int) -> list[str]:
    """One prompt for all rows, or one for each -> a list. Raises ValueError for another count or kind."""
    if isinstance(prompts, str):
        return [prompts] * rows
    texts = list(prompts)
    if len(texts) != rows:
        raise ValueError(
            f"got {len(texts)} prompts for {rows} rows; expected one each, or one string for all; repeat or "
            "drop some"
        )
    for number, prompt in enumerate(texts):
        if not isinstance(prompt, str):
            raise ValueError(f"got prompt {number}: {_described(prompt)}; expected a text; fill it in")
    return texts


def read(images: Sequence[ImageLike], *, first: int = 0, count: int | None = None) -> list[Item]:
    """Images, `first` of `count` on, -> RGB images, upright and on white, or tensors as they came.

    Raises ValueError, naming the image, for one that cannot be read or has other shapes or ranges.
    """
    total = len(images) if count is None else count
    return [_read(image, label(image, number, total)) for number, image in enumerate(images, first)]


def opened(images: Images) -> list[Image.Image]:
    """Images as they are stored, of any mode, neither turned nor laid on white: what authors' code opens.

    Raises ValueError, naming the image, for one that cannot be read, and for tensors.
    """
    given = listed(images)
    return [_opened(image, label(image, number, len(given))) for number, image in enumerate(given)]


def path_of(image: ImageLike) -> str:
    """The file that an image is or was opened from; "" where that is not known."""
    if isinstance(image, Image.Image):
        return str(getattr(image, "filename", ""))
    return str(image) if isinstance(image, str | PathLike) else ""


def label(image: ImageLike, number: int, count: int) -> str:
    """The name of an image in messages: its place in the list and its path."""
    path = path_of(image)
    if count == 1:
        return path or "image"
    return f"image {number} ({path})" if path else f"image {number}"


def _read(image: ImageLike, name: str) -> Item:
    if isinstance(image, Tensor):
        if image.ndim != 3:
            raise ValueError(f"{name}: got {_described(image)}; expected float (3, H, W) in [0, 1]; split it")
        try:
            check_images(image[None])
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from error
        return image
    opened = _opened(image, name)
    try:
        return on_white(ImageOps.exif_transpose(opened))
    except Exception as error:  # Pillow raises whatever broken metadata leads it to
        raise _unreadable(name, error) from error


def _opened(image: ImageLike, name: str) -> Image.Image:
    if isinstance(image, np.ndarray):
        return Image.fromarray(_levels(image, name))
    try:
        if isinstance(image, Image.Image):
            image.load()
            return image
        if isinstance(image, str | PathLike):
            with Image.open(Path(image).expanduser(), formats=_formats()) as file:
                file.load()
                return file
    except MemoryError:
        raise
    except Exception as error:  # decoders raise whatever broken bytes lead them to
        raise _unreadable(name, error) from error
    raise ValueError(f"{name}: got {_described(image)}; expected {KINDS}; convert it")


def _formats() -> list[str]:
    """The members of `FORMATS` that Pillow opens here, with registered plugins such as pillow-heif."""
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _unreadable(name: str, error: Exception) -> ValueError:
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    if isinstance(error, Image.UnidentifiedImageError):
        reason = "bytes of no known image format"
    return ValueError(
        f"{name}: got {reason}; expected a whole image (PNG, JPEG, WebP, ...); replace it or leave it out"
    )


def _levels(array: np.ndarray, name: str) -> np.ndarray:
    """(H, W, 3) -> uint8."""
    if array.ndim == 3 and array.shape[2] == 3 and array.size:
        if array.dtype == np.uint8:
            return array
        if array.dtype.kind == "f":
            low, high = float(array.min()), float(array.max())
            if low >= -SLACK and high <= 1 + SLACK:  # written so that NaN fails too
                levels: np.ndarray = np.rint(array.clip(0, 1) * 255).astype(np.uint8)
                return levels
            raise ValueError(
                f"{name}: got an array of floats in [{low:.3g}, {high:.3g}]; expected [0, 1]; scale it"
            )
    hint = "pass array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] == 3 else "convert it"
    raise ValueError(
        f"{name}: got {_described(array)}; expected (H, W, 3) of uint8 or of floats in [0, 1]; {hint}"
    )


def on_white(image: Image.Image) -> Image.Image:
    """An image of any mode -> 8-bit RGB, on white where it is transparent.

    16-bit and float grey levels are scaled to [0, 255]. Raises ValueError for levels outside their range.
    """
    if image.mode == "F" or image.mode.startswith("I"):
        levels = np.asarray(image)
        top = 65535.0 if levels.dtype.kind != "f" else 1.0 if float(levels.max()) <= 1 else 255.0
        low, high = float(levels.min()), float(levels.max())
        if not (low >= 0 and high <= top):  # written so that NaN fails too
            raise ValueError(f"grey levels from {low:g} to {high:g} where at most {top:g} has a meaning")
        image = Image.fromarray(np.rint(levels.astype(np.float64) * (255 / top)).astype(np.uint8))
    if image.mode == "La":
        image = image.convert("LA")
    if not image.has_transparency_data:
        return image.convert("RGB")
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def tensor(image: Image.Image) -> Tensor:
    """An image of any mode -> float (3, H, W) in [0, 1], its alpha dropped."""
    image = image if image.mode == "RGB" else image.convert("RGB")
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)


def _described(value: Any) -> str:
    if isinstance(value, np.ndarray | Tensor):
        kind = "tensor" if isinstance(value, Tensor) else "array"
        return f"{kind} {str(value.dtype).removeprefix('torch.')} {tuple(value.shape)}"
    text = repr(value)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:40] + '...'}"
