"""A contact sheet: many images as one."""

from __future__ import annotations

import math
from collections.abc import Sequence

from PIL import Image

CELL = (96, 256)
"""Smallest and largest side of a cell in pixels."""


def contact_sheet(images: Sequence[Image.Image], columns: int, gap: int = 4) -> Image.Image:
    """The images in rows of `columns` on white; small ones enlarged without smoothing, large ones shrunk."""
    cells = [_fit(image.convert("RGB")) for image in images]
    width, height = max(cell.width for cell in cells) + gap, max(cell.height for cell in cells) + gap
    lines = math.ceil(len(cells) / columns)
    sheet = Image.new("RGB", (columns * width + gap, lines * height + gap), "white")
    for index, cell in enumerate(cells):
        sheet.paste(cell, (gap + index % columns * width, gap + index // columns * height))
    return sheet


def _fit(image: Image.Image) -> Image.Image:
    least, most = CELL
    side = max(image.size)
    if side < least:
        factor = math.ceil(least / side)
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    image.thumbnail((most, most))
    return image
