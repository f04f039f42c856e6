"""Images inside of a page, so that the page stays one file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from PIL import Image

LARGEST = 512
"""Longest side of an embedded image in pixels; larger ones are shrunk and stored as JPEG."""
PIXEL_ART = 64
"""Images up to this many pixels are enlarged without smoothing."""


@dataclass(frozen=True)
class Shown:
    """An image as a page has it: where it lies, what stands in its place, and how it is enlarged."""

    src: str
    alt: str
    style: str
    """The class of the stylesheet: pixel for one that is enlarged without smoothing."""


def shown(image: Image.Image, alt: str) -> Shown:
    """The image embedded in the page; `alt` says in words what it shows."""
    return Shown(data_uri(image), alt, style_of(image.size))


def style_of(size: tuple[int, int]) -> str:
    """The stylesheet's class for an image of this width and height in pixels."""
    return "pixel" if max(size) <= PIXEL_ART else "smooth"


def data_uri(image: Image.Image) -> str:
    """The image as a data: URI: PNG as it is up to `LARGEST` pixels, else shrunk and JPEG."""
    copy, kind, stream = image.convert("RGB"), "png", io.BytesIO()
    if max(copy.size) > LARGEST:
        copy.thumbnail((LARGEST, LARGEST))
        kind = "jpeg"
    copy.save(stream, format=kind, **({"quality": 85} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
