"""The toy world's oracle as an object detector and as a colour classifier: exact and without weights."""

import math
from collections.abc import Sequence

from torch import Tensor

from rewards.detection.colours import ColourClassifier
from rewards.detection.detect import Box, Detection, Detector, inside
from rewards.toy.vision import check_canvas, read_things
from rewards.toy.world import CROSS_ARM, SHAPES, SQUARE_HALF_SIDE, TRIANGLE_INRADIUS, Array, Thing

UNKNOWN = "unknown"
"""The label of a thing that is no shape of this world, and its colour when that is off-palette."""

# How far each shape reaches left and right, up, and down from its centroid, over its equal-area radius.
REACH = {
    "circle": (1.0, 1.0, 1.0),
    "square": (SQUARE_HALF_SIDE, SQUARE_HALF_SIDE, SQUARE_HALF_SIDE),
    "triangle": (math.sqrt(3) * TRIANGLE_INRADIUS, 2 * TRIANGLE_INRADIUS, TRIANGLE_INRADIUS),
    "cross": (1.5 * CROSS_ARM, 1.5 * CROSS_ARM, 1.5 * CROSS_ARM),
    UNKNOWN: (1.0, 1.0, 1.0),
}


class ToyDetector(Detector):
    """Every thing on a white canvas with its shape as label and score 1; nothing is missed or invented."""

    labels = frozenset({*SHAPES, UNKNOWN})

    def detect(self, images: Tensor) -> list[list[Detection]]:
        """images (B, 3, H, W) in [0, 1] -> B lists of things; an unreadable shape is labelled "unknown"."""
        return [
            [Detection(thing.shape or UNKNOWN, 1.0, inside(_box(thing), image.shape[:2])) for thing in things]
            for image, things in ((image, read_things(image)) for image in _canvases(images))
        ]


class ToyColours(ColourClassifier):
    """The palette colour of the largest thing in each crop; "unknown" if none or off-palette."""

    def classify(self, crops: Sequence[Tensor], label: str) -> list[str]:
        """crops (3, h, w) in [0, 1] -> one colour name each."""
        seen = [read_things(_canvases(crop[None])[0]) for crop in crops]
        return [max(things, key=lambda t: t.size).colour or UNKNOWN if things else UNKNOWN for things in seen]


def _canvases(images: Tensor) -> list[Array]:
    check_canvas(*images.shape[-2:])
    return list(images.detach().permute(0, 2, 3, 1).double().cpu().numpy())


def _box(thing: Thing) -> Box:
    aside, up, down = (share * thing.size for share in REACH[thing.shape or UNKNOWN])
    return thing.x - aside, thing.y - up, thing.x + aside, thing.y + down
