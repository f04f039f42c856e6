"""The parts of a chart, in units of its own box; the template `parts.html` turns it into <svg>."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from t2ialign.web.pages import part

if TYPE_CHECKING:
    from markupsafe import Markup

WIDTH, HEIGHT = 560, 250

Point = tuple[float, float]


class Rule(NamedTuple):
    """A line of the grid."""

    x_1: float
    y_1: float
    x_2: float
    y_2: float


class Words(NamedTuple):
    """A text; `anchor` says which part of it lies at x: start, middle or end."""

    x: float
    y: float
    text: str
    anchor: str


class Path(NamedTuple):
    """A line through points, or the area within; colour and style are classes of the stylesheet."""

    points: str
    colour: str
    style: str


class Box(NamedTuple):
    """A bar."""

    x: float
    y: float
    width: float
    height: float
    colour: str


@dataclass
class Drawing:
    """A chart that is being drawn; `label` is what a screen reader says of it."""

    label: str
    height: float = HEIGHT
    width: float = WIDTH
    legend: list[tuple[str, str]] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    words: list[Words] = field(default_factory=list)
    bands: list[Path] = field(default_factory=list)
    lines: list[Path] = field(default_factory=list)
    boxes: list[Box] = field(default_factory=list)
    whiskers: list[str] = field(default_factory=list)

    def name(self, text: str, colour: str) -> None:
        """An entry of the legend."""
        self.legend.append((text, colour))

    def rule(self, x_1: float, y_1: float, x_2: float, y_2: float) -> None:
        """A line of the grid."""
        self.rules.append(Rule(*(round(value, 1) for value in (x_1, y_1, x_2, y_2))))

    def write(self, x: float, y: float, text: str, anchor: str) -> None:
        """A text whose start, middle or end lies at x."""
        self.words.append(Words(round(x, 1), round(y, 1), text, anchor))

    def band(self, points: Sequence[Point], colour: str) -> None:
        """An area between the ends of intervals."""
        self.bands.append(Path(_text(points), colour, "band"))

    def line(self, points: Sequence[Point], colour: str, style: str = "curve") -> None:
        """A line through points; the style "faint" is for one that a running mean lies upon."""
        self.lines.append(Path(_text(points), colour, style))

    def bar(self, corner: Point, width: float, height: float, colour: str) -> None:
        """A bar by its upper left corner."""
        x, y, wide, high = (round(value, 1) for value in (*corner, width, height))
        self.boxes.append(Box(x, y, wide, high, colour))

    def whisker(self, path: str) -> None:
        """An interval, as SVG's path data."""
        self.whiskers.append(path)

    def markup(self) -> Markup:
        """Legend and <svg>."""
        return part("drawing", self)


def _text(points: Sequence[Point]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
