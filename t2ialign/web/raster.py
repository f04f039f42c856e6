"""Text, images and charts painted as pixels, where an image is wanted and no browser is at hand.

Lengths are points, those of a page at its usual size. All is painted `FINE` pixels a point and halved in the
end: edges are smooth, and the result is sharp on a screen of two pixels a point.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from t2ialign.web.drawing import Drawing

FINE = 4
TEXT, QUIET, FRAME, GOOD, BAD = "#202124", "#5a6066", "#d8dce0", "#00695c", "#9c2b00"
"""Colours of the stylesheet in its light form."""
COLOURS = {
    "vermilion": "#d55e00",
    "blue": "#0072b2",
    "green": "#009e73",
    "grey": "#5f6368",
    "purple": "#cc79a7",
    "orange": "#e69f00",
    "sky": "#56b4e9",
    "brown": "#8c510a",
}
"""Colours of curves as the stylesheet names them."""
BAND = 0.18
"""The opacity of the area between the ends of intervals."""
LEADING = 1.3
"""The distance of two lines of a paragraph, in sizes of its text."""


class Block:
    """A part of the image, of a width and height in points; `stacked` puts parts below one another."""

    def __init__(self, width: float, height: float) -> None:
        self.image = Image.new("RGB", (math.ceil(width) * FINE, math.ceil(height) * FINE), "white")
        self.pen = ImageDraw.Draw(self.image)

    def write(
        self, at: tuple[float, float], text: str, size: float, *, colour: str = TEXT, **how: Any
    ) -> float:
        """A line of text whose baseline starts there -> the x at which it ends.

        how: `bold`, and `anchor`, which is "ms" for text whose middle and "rs" for text whose end lies there.
        """
        text = _drawable(text)
        stroke = round(size * FINE / 45) if how.get("bold") else 0
        place = at[0] * FINE, at[1] * FINE
        self.pen.text(place, text, colour, _font(size), how.get("anchor", "ls"), stroke_width=stroke)
        return at[0] + length(text, size)

    def paragraph(
        self, at: tuple[float, float], text: str, size: float, width: float, *, colour: str = TEXT
    ) -> float:
        """Text in lines of at most that width, the first on the baseline there -> the baseline after it."""
        x, y = at
        for line in wrapped(text, size, width):
            self.write((x, y), line, size, colour=colour)
            y += LEADING * size
        return y

    def put(self, at: tuple[float, float], image: Image.Image, side: float) -> None:
        """An image as a framed square with that side; a small one is enlarged without smoothing."""
        pixels, corner = round(side) * FINE, (round(at[0]) * FINE, round(at[1]) * FINE)  # halved exactly
        how = Image.Resampling.NEAREST if max(image.size) < pixels else Image.Resampling.LANCZOS
        self.image.paste(image.convert("RGB").resize((pixels, pixels), how), corner)
        end = corner[0] + pixels - 1, corner[1] + pixels - 1
        self.pen.rectangle((*corner, *end), outline=FRAME, width=FINE // 2)

    def chart(self, at: tuple[float, float], drawing: Drawing, width: float) -> None:
        """A chart of lines in that width, its legend above it."""
        x, y = at
        for name, colour in drawing.legend:
            box = (x * FINE, (y - 10) * FINE, (x + 11) * FINE, (y + 1) * FINE)
            self.pen.rectangle(box, fill=COLOURS[colour])
            x = self.write((x + 17, y), name, 14) + 20
        scale, left, top = width / drawing.width, at[0], y + 12

        def place(point: Sequence[float]) -> tuple[float, float]:
            return (left + scale * point[0]) * FINE, (top + scale * point[1]) * FINE

        for rule in drawing.rules:
            self.pen.line((place(rule[:2]), place(rule[2:])), fill=FRAME, width=FINE)
        for band in drawing.bands:
            self._shade([place(point) for point in _points(band.points)], COLOURS[band.colour])
        for line in drawing.lines:
            points = [place(point) for point in _points(line.points)]
            self.pen.line(points, fill=COLOURS[line.colour], width=2 * FINE, joint="curve")
        for words in drawing.words:
            x, y = left + scale * words.x, top + scale * words.y
            anchor = {"start": "ls", "middle": "ms", "end": "rs"}[words.anchor]
            self.write((x, y), words.text, 14, anchor=anchor)

    def _shade(self, points: Sequence[tuple[float, float]], colour: str) -> None:
        mask = Image.new("L", self.image.size)
        ImageDraw.Draw(mask).polygon(points, fill=round(255 * BAND))
        self.image.paste(Image.new("RGB", self.image.size, colour), mask=mask)


def stacked(blocks: Sequence[Block]) -> Image.Image:
    """The parts below one another, all of one width, at two pixels a point."""
    height = sum(block.image.height for block in blocks)
    whole, y = Image.new("RGB", (blocks[0].image.width, height), "white"), 0
    for block in blocks:
        whole.paste(block.image, (0, y))
        y += block.image.height
    return whole.reduce(FINE // 2)


def wrapped(text: str, size: float, width: float) -> list[str]:
    """The text in lines of at most that width, broken at spaces; a longer word has a line of its own."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and length(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


def length(text: str, size: float) -> float:
    """The width of a line of text in points."""
    return float(_font(size).getlength(_drawable(text))) / FINE


def _drawable(text: str) -> str:
    """The typeface has no glyph for a space at which lines are not broken."""
    return text.replace("\N{NO-BREAK SPACE}", " ")


@cache
def _font(size: float) -> Any:
    """The typeface that comes with Pillow."""
    return ImageFont.load_default(size * FINE)


def _points(text: str) -> list[tuple[float, ...]]:
    return [tuple(map(float, pair.split(","))) for pair in text.split()]
