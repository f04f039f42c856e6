"""The toy world: a white canvas, six colours, four shapes, and the pixels that their ink covers."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.86, 0.15, 0.16),
    "green": (0.12, 0.62, 0.26),
    "blue": (0.16, 0.34, 0.90),
    "yellow": (0.96, 0.78, 0.06),
    "purple": (0.62, 0.20, 0.76),
    "black": (0.10, 0.10, 0.12),
}
SHAPES = ("circle", "square", "triangle", "cross")
WHITE = 1.0
CANVAS = 32

# Ratio of each shape's reach to the radius r of the circle of equal area.
SQUARE_HALF_SIDE = math.sqrt(math.pi) / 2
TRIANGLE_INRADIUS = math.sqrt(math.pi / (3 * math.sqrt(3)))
CROSS_ARM = math.sqrt(math.pi / 5)


@dataclass(frozen=True)
class Thing:
    """One object on the canvas: centroid `x, y` and the radius `size` of the circle of equal area, in pixels.

    `shape` or `colour` is None where an image shows something that the world does not contain.
    """

    shape: str | None
    colour: str | None
    x: float
    y: float
    size: float


def _box(x: Array, y: Array, half_width: float, half_height: float) -> Array:
    return np.maximum(np.abs(x) - half_width, np.abs(y) - half_height)


def signed_distance(shape: str, x: Array, y: Array, size: float) -> Array:
    """Pixels from (x, y) to the outline of `shape` centred at 0; negative inside. y points down."""
    if shape == "circle":
        return np.hypot(x, y) - size
    if shape == "square":
        return _box(x, y, SQUARE_HALF_SIDE * size, SQUARE_HALF_SIDE * size)
    if shape == "triangle":  # equilateral, apex up
        slanted = math.sqrt(3) / 2 * np.abs(x) - 0.5 * y
        return np.maximum(slanted, y) - TRIANGLE_INRADIUS * size
    if shape == "cross":
        short, long = CROSS_ARM * size / 2, 3 * CROSS_ARM * size / 2
        return np.minimum(_box(x, y, long, short), _box(x, y, short, long))
    raise ValueError(f"got shape {shape!r}; expected one of {', '.join(SHAPES)}")


def distance_map(thing: Thing, height: int = CANVAS, width: int = CANVAS) -> Array:
    """(H, W) signed distance of every pixel centre to the thing's outline, in pixels."""
    assert thing.shape is not None, "only things of a known shape can be drawn"
    y, x = np.mgrid[0:height, 0:width] + 0.5
    return signed_distance(thing.shape, x - thing.x, y - thing.y, thing.size)


def coverage(distance: Array) -> Array:
    """Signed distance -> share of the pixel that is inked, in [0, 1]: a one pixel wide antialiased edge."""
    return np.clip(0.5 - distance, 0.0, 1.0)
