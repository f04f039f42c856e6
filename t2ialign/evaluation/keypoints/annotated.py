"""Images annotated key point by key point: what a judge of key points is fitted to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from rewards.keypoints.taxonomy import KeyPoint
from t2ialign.data.images import ImageSource, image_of
from t2ialign.data.prompts import prompt_text
from t2ialign.data.sources import read_rows
from t2ialign.evaluation.keypoints.files import kind_spelled
from t2ialign.io.messages import listed, quoted

COLUMNS = ["image", "prompt", "points"]
KEYS = {"kind", "description", "match"}


@dataclass(frozen=True)
class Annotated:
    """An image, the user's prompt, its key points, and whether the image shows each of them."""

    name: str
    """The place in the source, for messages."""
    image: ImageSource
    prompt: str
    points: tuple[KeyPoint, ...]
    matches: tuple[bool, ...]


def read_annotated(source: str, *, split: str = "train") -> Iterator[Annotated]:
    """Rows of image, prompt and points, from a file, a folder of parquet files or the Hub.

    `points` is a list of {"kind", "description", "match"}, or JSON of one; a kind by any spelling, match true
    or false. Raises ValueError, naming the row, for anything else.
    """
    rows, base = read_rows(source, select=_select, split=split, streaming=True)
    for where, row in rows:
        _select(where, list(row))
        prompt = prompt_text(where, row["prompt"])
        pairs = [_pair(where, entry) for entry in _entries(where, row["points"])]
        yield Annotated(
            where,
            image_of(where, row["image"], base),
            prompt,
            tuple(point for point, _ in pairs),
            tuple(match for _, match in pairs),
        )


def _select(where: str, names: list[str]) -> list[str]:
    if missing := set(COLUMNS) - set(names):
        raise ValueError(
            f"{where}: got columns {listed(names)}; expected {', '.join(COLUMNS)}; add {min(missing)}"
        )
    return COLUMNS


def _entries(where: str, value: Any) -> list[Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            value = None
    if not isinstance(value, list) or not value:
        raise ValueError(
            f"{where}: got points that are no list or empty; expected key points; correct the row"
        )
    return value


def _pair(where: str, entry: Any) -> tuple[KeyPoint, bool]:
    if not isinstance(entry, dict) or not set(entry) >= KEYS or entry["match"] not in (0, 1):
        raise ValueError(
            f"{where}: got key point {quoted(entry)}; expected an object with kind, description, and "
            "match that is true or false; correct it"
        )
    try:
        return KeyPoint(kind_spelled(str(entry["kind"])), entry["description"]), bool(entry["match"])
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
