"""Key points judged on images, as rows of a journal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor

from rewards.device import default_device
from rewards.failures import UnfitImage
from rewards.keypoints.evaluator import AlignEvaluator
from rewards.keypoints.taxonomy import KeyPoint
from t2ialign.scoring.budget import MAX_BATCH_PIXELS
from t2ialign.scoring.decode import Decoder
from t2ialign.scoring.engine import floats
from t2ialign.scoring.items import Item

Row = dict[str, Any]
"""{"id", "shard", "row", "file", "prompt", "verdicts", "error": text or None}."""
Points = Mapping[str, Sequence[KeyPoint] | None]
"""Prompt -> its key points."""


def judged_rows(
    evaluator: AlignEvaluator, items: Sequence[Item], points: Points, max_pixels: int = MAX_BATCH_PIXELS
) -> Iterator[list[Row]]:
    """Items -> journal rows, images of one size together; what cannot be opened has an error, no verdict.

    At most `max_pixels` of a batch, or one image, are in memory. Raises ValueError as the judge does: a
    server that is down is no fault of an image.
    """
    for images in Decoder([], raw=True, max_pixels=max_pixels).parts(items):
        rows: list[Row] = [
            {
                **{"id": item.identity, "shard": item.shard, "row": item.row},
                **{"file": item.file, "prompt": item.prompt, "verdicts": [], "error": item.error},
            }
            for item in images.items
        ]
        if broken := [row for row in rows if row["error"] is not None]:
            yield broken
        sizes: dict[Any, list[int]] = {}
        for rank, pixels in enumerate(images.raw):
            sizes.setdefault(pixels.shape, []).append(rank)
        for alike in sizes.values():
            some = [rows[images.good[rank]] for rank in alike]
            _judge_alike(evaluator, [images.raw[rank] for rank in alike], some, points)
            yield some


def _judge_alike(
    evaluator: AlignEvaluator, images: Sequence[Tensor], rows: Sequence[Row], points: Points
) -> None:
    """Verdicts on images of one size into their rows, or why the judge takes none of that size."""
    prompts = [row["prompt"] for row in rows]
    points_of_rows = [points[prompt] or [] for prompt in prompts]
    try:
        evaluations = evaluator.judge(floats(images, default_device()), prompts, points_of_rows)
    except UnfitImage as error:
        for row in rows:
            row["error"] = f"{row['file']}: {error}"
        return
    for row, one in zip(rows, evaluations, strict=True):
        row["verdicts"] = [
            {
                **{"kind": verdict.point.kind, "description": verdict.point.description},
                **{"match": verdict.match, "reason": verdict.reason},
            }
            for verdict in one.verdicts
        ]
