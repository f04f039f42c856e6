"""Classifies the colour of a cut-out object: GenEval's zero-shot classifier behind an interface."""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.detection.detect import Detection
from rewards.pixels import pil_images
from rewards.preprocess import CLIP_224, Geometry
from rewards.towers.two_tower import Tower

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TEMPLATES = (
    "a photo of a {colour} {label}",
    "a photo of a {colour}-colored {label}",
    "a photo of a {colour} object",
)
BACKDROP = 0x99 / 255
"""The grey, #999, that replaces what a mask leaves out."""


class ColourClassifier(nn.Module, ABC):
    """Names the colour of cropped objects."""

    @abstractmethod
    def classify(self, crops: Sequence[Tensor], label: str) -> list[str]:
        """crops, each (3, h, w) in [0, 1], of objects of one label -> one colour name a crop."""


class ClipColours(ColourClassifier):
    """The colour whose three templates, averaged on the sphere, lie nearest to the crop.

    GenEval's is OpenAI's CLIP ViT-L/14, which it runs in half precision; here it runs in the tower's own.
    """

    def __init__(self, tower: Tower, geometry: Geometry = CLIP_224) -> None:
        super().__init__()
        self.tower, self.geometry = tower, geometry

    @torch.no_grad()
    def classify(self, crops: Sequence[Tensor], label: str) -> list[str]:
        """crops (3, h, w) in [0, 1] -> one of the ten colours each."""
        if not crops:
            return []
        prompts = [t.format(colour=colour, label=label) for colour in COLOURS for t in TEMPLATES]
        embedded = self.tower.texts(prompts).reshape(len(COLOURS), len(TEMPLATES), -1)
        anchors = F.normalize(embedded.mean(1), dim=-1)
        squares = [self.geometry.reference(pil_images(crop[None])[0]) for crop in crops]
        nearest = (self.tower.encode_image(torch.stack(squares).to(anchors)) @ anchors.T).argmax(-1)
        return [COLOURS[index] for index in nearest.tolist()]


def cut_out(image: Tensor, thing: Detection) -> Tensor:
    """image (3, H, W) -> the detection's box of it (3, h, w), grey where its mask is off; h, w at least 1."""
    if thing.mask is not None:
        image = torch.where(thing.mask.to(image.device), image, BACKDROP)
    x1, y1, x2, y2 = (round(side) for side in thing.box)
    height, width = image.shape[1:]
    left, top = min(max(x1, 0), width - 1), min(max(y1, 0), height - 1)
    return image[:, top : max(min(y2, height), top + 1), left : max(min(x2, width), left + 1)]
