"""Image -> things: the toy world read back with classical vision, exactly and without learning.

Ink is whatever is not white. Each connected patch of ink is one thing: its colour is the nearest of the
palette to the patch's core, its shape the one whose own antialiased drawing, of the same area and centroid,
fits best. A patch that fits nothing is a thing of unknown shape or colour, so that it fails every caption.
"""

import math

import numpy as np
from scipy import ndimage

from rewards.failures import UnfitImage
from rewards.toy.world import CANVAS, COLOURS, SHAPES, WHITE, Array, Thing, coverage, distance_map

INK = 0.28  # how far from white (Euclidean, RGB in [0, 1]) a pixel must be to belong to a thing
SPECK = 3.0  # patches with less ink than this many pixels are noise of the decoder, not things
COLOUR_TOLERANCE = 0.25  # a core further than this from every palette colour is off-palette
SHAPE_TOLERANCE = 0.24  # share of the ink that may lie differently from the best-fitting drawing
SHAPE_MARGIN = 0.7  # the best drawing's misfit, over the second best's, above which the ink is between shapes

LARGEST = 1 << 22
"""Pixels of an image that is read: every thing on it is compared with drawings of the whole canvas."""

_NAMES = list(COLOURS)
_PALETTE = np.array(list(COLOURS.values()))


def check_canvas(height: int, width: int) -> None:
    """Raises UnfitImage for an image that is too large to be read."""
    if height * width > LARGEST:
        raise UnfitImage(
            f"got an image of {width}x{height} pixels; expected one of the toy world, which has "
            f"{CANVAS}x{CANVAS}, and never more than {LARGEST} pixels; shrink it, or choose another reward"
        )


def _colour(core: Array) -> tuple[str | None, Array]:
    """Mean core colour (3,) -> palette name (None when off-palette) and the palette colour nearest to it."""
    distance = np.linalg.norm(_PALETTE - core, axis=1)
    best = int(distance.argmin())
    return (_NAMES[best] if distance[best] <= COLOUR_TOLERANCE else None), _PALETTE[best]


def _ink_share(pixels: Array, colour: Array) -> Array:
    """(H, W, 3) -> (H, W) in [0, 1]: how far each pixel went from white to `colour`."""
    direction = WHITE - colour
    return np.clip((WHITE - pixels) @ direction / (direction @ direction), 0.0, 1.0)


def _shape(ink: Array, x: float, y: float, size: float) -> str | None:
    """The shape whose drawing alone fits the ink; None if none does, or a second one nearly as well."""
    height, width = ink.shape
    misfit = [
        np.abs(coverage(distance_map(Thing(shape, None, x, y, size), height, width)) - ink).sum() / ink.sum()
        for shape in SHAPES
    ]
    best, second = np.argsort(misfit)[:2]
    clear = misfit[best] <= min(SHAPE_TOLERANCE, SHAPE_MARGIN * misfit[second])
    return SHAPES[best] if clear else None


def read_things(image: Array) -> list[Thing]:
    """(H, W, 3) in [0, 1] -> the things on it, in reading order of scipy.ndimage.label.

    Raises UnfitImage for one of more than `LARGEST` pixels, which is none of the toy world.
    """
    check_canvas(*image.shape[:2])
    strength = np.linalg.norm(WHITE - image, axis=2)
    patches, count = ndimage.label(strength > INK, structure=np.ones((3, 3)))
    things = []
    for index in range(1, count + 1):
        patch = patches == index
        # The antialiased rim falls below INK: give it back to the patch, but never a neighbour's rim.
        rim = ndimage.binary_dilation(patch, iterations=1) & ((patches == 0) | patch)
        core = patch & (strength >= 0.85 * np.quantile(strength[patch], 0.9))
        name, colour = _colour(image[core].mean(axis=0))
        ink = _ink_share(image, colour) * rim
        area = float(ink.sum())
        if area < SPECK:
            continue
        rows, columns = np.mgrid[0 : image.shape[0], 0 : image.shape[1]] + 0.5
        x, y = float((ink * columns).sum() / area), float((ink * rows).sum() / area)
        size = math.sqrt(area / math.pi)
        things.append(Thing(_shape(ink, x, y, size), name, x, y, size))
    return things
