"""Object detectors behind one interface: images in, labelled boxes out.

`TransformersDetector` runs any `AutoModelForObjectDetection`, `MaskDetector` the Mask2Former instance
segmentation that GenEval uses, `rewards.toy.detector` the toy world. Labels are GenEval's object
names.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rewards.pixels import eight_bit

ALIASES = {
    "aeroplane": "airplane",
    "diningtable": "dining table",
    "hair dryer": "hair drier",
    "keyboard": "computer keyboard",
    "motorbike": "motorcycle",
    "mouse": "computer mouse",
    "pottedplant": "potted plant",
    "remote": "tv remote",
    "sofa": "couch",
    "tvmonitor": "tv",
}
"""COCO and VOC spellings of the 80 classes -> GenEval's `object_names.txt`."""

LOWEST = 0.05
"""Detections below this score are dropped at once; a reward's own threshold is far above."""

MOST_MASKS = 100  # best (query, class) pairs an image, as Mask2Former's instance head keeps

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class Detection:
    """One object: its label, score in [0, 1], box (x1, y1, x2, y2) in pixels (y down), mask (H, W) bool."""

    label: str
    score: float
    box: Box
    mask: Tensor | None = field(default=None, compare=False, repr=False)


class Detector(nn.Module, ABC):
    """images (B, 3, H, W) in [0, 1] -> for each image its detections, best first; takes no gradient."""

    labels: frozenset[str] = frozenset()
    """Every label this detector can give; empty where that is not known beforehand."""

    @abstractmethod
    def detect(self, images: Tensor) -> list[list[Detection]]:
        """images (B, 3, H, W) in [0, 1] -> B lists of detections, in any order."""

    @torch.no_grad()
    def forward(self, images: Tensor) -> list[list[Detection]]:
        """images (B, 3, H, W) in [0, 1] -> B lists, best first. Raises ValueError if there are not B."""
        detections = self.detect(images)
        if len(detections) != len(images):
            name = type(self).__name__
            raise ValueError(
                f"got {len(detections)} lists from {name}.detect; expected {len(images)}; return a list "
                "per image"
            )
        return [sorted(things, key=lambda thing: -thing.score) for things in detections]


def canonical(label: str) -> str:
    """A detector's class name in GenEval's spelling, e.g. "tvmonitor" -> "tv"; others in lower case."""
    plain = " ".join(label.lower().replace("_", " ").split())
    return ALIASES.get(plain, plain)


class TransformersDetector(Detector):
    """A `transformers` object detector (DETR, YOLOS, RT-DETR, ...) with its own image processor.

    It sees eight-bit images, as the processors of published checkpoints expect; scores are in [0, 1].
    """

    def __init__(self, model: Any, processor: Any, lowest: float = LOWEST) -> None:
        super().__init__()
        self.model, self.processor, self.lowest = model.eval().requires_grad_(False), processor, lowest
        self.names = {int(index): canonical(name) for index, name in model.config.id2label.items()}
        self.labels = frozenset(self.names.values()) - {"n/a"}

    def detect(self, images: Tensor) -> list[list[Detection]]:
        """images (B, 3, H, W) in [0, 1] -> B lists of detections above `lowest`; boxes end at the border."""
        inputs = self.processor(images=list(eight_bit(images)), return_tensors="pt").to(self.model.device)
        outputs = self.model(**inputs)
        height, width = images.shape[-2:]
        sizes = torch.tensor([[height, width]] * len(images), device=self.model.device)
        results = self.processor.post_process_object_detection(
            outputs, threshold=self.lowest, target_sizes=sizes
        )
        return [self._named(row, (height, width)) for row in results]

    def _named(self, row: dict[str, Tensor], size: tuple[int, int]) -> list[Detection]:
        rows = zip(row["labels"].tolist(), row["scores"].tolist(), row["boxes"].tolist(), strict=True)
        things = [Detection(self.names[label], score, inside(box, size)) for label, score, box in rows]
        return [thing for thing in things if thing.label in self.labels]


class MaskDetector(TransformersDetector):
    """Mask2Former instance segmentation in `transformers`: GenEval's detector, whose masks cut out colours.

    A query's score is its class probability times the mean mask probability inside its mask, and its box
    encloses the mask; the 100 best (query, class) pairs are kept and may overlap, Cheng et al. 2022.
    """

    def detect(self, images: Tensor) -> list[list[Detection]]:
        """images (B, 3, H, W) in [0, 1] -> B lists of detections above `lowest`, each with its mask."""
        inputs = self.processor(images=list(eight_bit(images)), return_tensors="pt").to(self.model.device)
        outputs = self.model(**inputs)
        padded = inputs["pixel_values"].shape[-2:]
        detections: list[list[Detection]] = []
        for classes, masks, region in zip(
            outputs.class_queries_logits, outputs.masks_queries_logits, inputs["pixel_mask"], strict=True
        ):
            likely = (
                classes.float().softmax(-1)[:, :-1].amax(-1) > self.lowest
            )  # no score exceeds its class's
            if not likely.any():
                detections.append([])
                continue
            used = int(region.any(1).sum()), int(region.any(0).sum())  # the padding lies below and right
            grown = F.interpolate(masks[likely][None], padded, mode="bilinear")[..., : used[0], : used[1]]
            masks = F.interpolate(grown, images.shape[-2:], mode="bilinear")[0]
            detections.append(self.instances(classes[likely], masks))
        return detections

    def instances(self, classes: Tensor, masks: Tensor) -> list[Detection]:
        """Class logits (Q, C + 1) and mask logits (Q, H, W) -> detections; the last class is "no object"."""
        chances = classes.float().softmax(-1)[:, :-1]
        best, index = chances.flatten().topk(min(MOST_MASKS, chances.numel()))
        things = []
        for chance, query, label in zip(
            best, index // chances.shape[1], index % chances.shape[1], strict=True
        ):
            logits = masks[query].float()
            mask = logits > 0
            if self.names[int(label)] in self.labels and mask.any():
                score = float(chance * logits[mask].sigmoid().mean())
                if score > self.lowest:
                    things.append(Detection(self.names[int(label)], score, enclosing(mask), mask.cpu()))
        return things


def enclosing(mask: Tensor) -> Box:
    """mask (H, W) bool, not empty -> the box around it, its right and lower ends exclusive."""
    columns, rows = mask.any(0).nonzero()[:, 0], mask.any(1).nonzero()[:, 0]
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)


def inside(box: Sequence[float], size: tuple[int, int]) -> Box:
    """A box cut at the borders of an image of (height, width)."""
    x1, y1, x2, y2 = box
    height, width = size
    return (
        min(max(x1, 0.0), float(width)),
        min(max(y1, 0.0), float(height)),
        min(max(x2, 0.0), float(width)),
        min(max(y2, 0.0), float(height)),
    )


def overlap(a: Box, b: Box, pixel: float = 0.0) -> float:
    """Intersection over union, in [0, 1]; GenEval adds `pixel` = 1 to every side."""

    def area(x1: float, y1: float, x2: float, y2: float) -> float:
        return max(x2 - x1 + pixel, 0.0) * max(y2 - y1 + pixel, 0.0)

    shared = area(max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3]))
    union = area(*a) + area(*b) - shared
    return shared / union if union else 0.0


def select(
    detections: Sequence[Detection], *, threshold: float, most: int | None = None, max_overlap: float = 1.0
) -> dict[str, list[Detection]]:
    """Detections -> {label: those scoring above `threshold`, best first, the `most` best, then suppressed}.

    A box that overlaps a better one of its label by `max_overlap` or more is dropped; 1 keeps all, as
    GenEval.
    """
    groups: dict[str, list[Detection]] = {}
    for thing in sorted(detections, key=lambda thing: -thing.score):
        if thing.score > threshold:
            groups.setdefault(thing.label, []).append(thing)
    return {label: _suppressed(things[:most], max_overlap) for label, things in groups.items()}


def _suppressed(things: list[Detection], max_overlap: float) -> list[Detection]:
    if max_overlap >= 1:
        return things
    separate: list[Detection] = []
    for thing in things:
        if all(overlap(thing.box, other.box, pixel=1.0) < max_overlap for other in separate):
            separate.append(thing)
    return separate
