"""Single images with their prompt and prompts that do not fit them, which a scorer may check on the image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL.Image import Image

from t2ialign.data.cache.keys import image_key
from t2ialign.data.images import ImageSource, open_rgb
from t2ialign.data.rated import RatedRecord
from t2ialign.io import jsonl
from t2ialign.io.messages import quoted

if TYPE_CHECKING:
    from rewards import Reward

CHUNK = 16
"""Images that are checked at a time."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ContrastedRecord:
    """An image of a prompt, and as many prompts that do not fit it as every other record has."""

    rated: RatedRecord
    others: tuple[str, ...]

    @property
    def labels(self) -> Mapping[str, float]:
        """What a cache keeps beside the image: nothing."""
        return {}

    @property
    def prompt(self) -> str:
        """The prompt of its image."""
        return self.rated.prompt

    @property
    def images(self) -> Mapping[str, ImageSource]:
        """The image, which messages call by its row alone."""
        return self.rated.images

    @property
    def weight(self) -> float:
        """Its weight in the loss."""
        return self.rated.weight

    @property
    def name(self) -> str:
        """The place in the source, for messages."""
        return self.rated.name


class Checker:
    """A scorer that says of which prompts an image is no image: those that score lower than its own.

    margin: how much lower at least. What it said is kept in a journal, so that no image is scored twice.
    """

    def __init__(self, reward: Reward, margin: float, journal: Path) -> None:
        self.reward, self.margin, self.journal = reward, margin, journal
        self._known: dict[tuple[int, str], dict[str, float]] = {
            (row["image"], row["prompt"]): row["scores"] for row in jsonl.read(journal)
        }

    def __call__(self, images: Sequence[tuple[RatedRecord, list[str]]]) -> list[list[str]]:
        """The prompts of each image that are false of it, by the scorer; all, of one that cannot be read."""
        todo = {
            self._key(record): (record, others)
            for record, others in images
            if not {record.prompt, *others} <= self._known.get(self._key(record), {}).keys()
        }
        opened = {key: _opened(record) for key, (record, _) in todo.items()}
        readable = [key for key, image in opened.items() if image is not None]
        texts = [[todo[key][0].prompt, *todo[key][1]] for key in readable]
        self._score(readable, [image for image in opened.values() if image is not None], texts)
        return [
            [other for other in others if self._lower(self._known.get(self._key(record)), record, other)]
            for record, others in images
        ]

    def _lower(self, scores: dict[str, float] | None, record: RatedRecord, other: str) -> bool:
        return scores is None or scores[record.prompt] - scores[other] > self.margin

    @torch.no_grad()
    def _score(self, keys: list[tuple[int, str]], images: list[Image], texts: list[list[str]]) -> None:
        """All prompts of some images, into the journal."""
        if not keys:
            return
        flat = iter(self.reward.table_pil(images, texts).tolist())
        scores = [dict(zip(some, islice(flat, len(some)), strict=True)) for some in texts]
        rows = [{"image": k, "prompt": p, "scores": s} for (k, p), s in zip(keys, scores, strict=True)]
        self.journal.parent.mkdir(parents=True, exist_ok=True)
        jsonl.append(self.journal, rows)
        self._known |= dict(zip(keys, scores, strict=True))

    def _key(self, record: RatedRecord) -> tuple[int, str]:
        return image_key(record.image), record.prompt


def _opened(record: RatedRecord) -> Image | None:
    """The image; None of one that cannot be read, of which the cache will say so."""
    try:
        return open_rgb(record.image, name=record.name)
    except ValueError:
        return None


def contrasted(
    images: Iterable[RatedRecord],
    source: Callable[[str], list[str]],
    checker: Checker | None,
    *,
    count: int,
    origin: str,
) -> Iterator[ContrastedRecord]:
    """The images that are liked, each with `count` mismatched prompts; with fewer some stand twice.

    An image without any is left out, and a warning counts them. Raises ValueError if none is left.
    """
    seen, given, true, example = 0, 0, 0, ""
    liked = (record for record in images if record.liked)
    while chunk := [(record, source(record.prompt)) for record in islice(liked, CHUNK)]:
        left = [others for _, others in chunk] if checker is None else checker(chunk)
        for (record, before), others in zip(chunk, left, strict=True):
            seen, true = seen + 1, true + len(before) - len(others)
            if others:
                given += 1
                yield ContrastedRecord(record, tuple((others * count)[:count]))
            else:
                example = example or record.prompt
    if not given:
        raise ValueError(
            f"got no mismatched prompt for any of {seen} images in {origin}, such as {quoted(example)}; "
            "expected some; name a language model (llm) or a file of them (mismatched), or lower check_margin"
        )
    if true:
        log.warning("%s: %d mismatched prompts are left out, as true of their images", origin, true)
    if given < seen:
        numbers = origin, seen - given, seen, quoted(example)
        log.warning("%s: %d of %d images have no mismatched prompt and are left out, such as %s", *numbers)
