"""Images of a prompt with what was said of each: rankings as published, and columns of scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from t2ialign.data.files.tables import first_of
from t2ialign.data.images import ImageSource
from t2ialign.data.pairs import image_cell
from t2ialign.data.prompts import PROMPT_COLUMNS, prompt_text
from t2ialign.data.skipped import Fault
from t2ialign.data.sources import read_rows
from t2ialign.io.messages import listed, quoted

RANK = "rank"
"""The name of the one score of a ranking."""
RANKINGS: Mapping[tuple[str, str], int] = {
    ("generations", "ranking"): -1,
    ("image_path", "rank"): -1,
    ("file_path", "human_preference"): 1,
}
"""Columns of images and of their places in a published ranking -> 1 if a larger number is better, else -1.

ImageReward (its data/test.json), and HPDv2's test.json and train.json, as its README describes them.
"""
SIDES = ("", "train", "test")
"""Folders beside a ranking in which its images may lie: HPDv2 names them without theirs."""
IMAGES = ("image", "img", "jpg", "file", "file_name", "filename", "image_path", "path")
"""Names of a column of images, in order of preference, letter case aside."""


@dataclass(frozen=True)
class Judged:
    """One image of a prompt and its scores, of which more is better; NaN for one that nobody gave."""

    prompt: str
    image: ImageSource
    scores: tuple[float, ...]
    group: str
    """Images of one group are compared: those of a prompt, or of a row of a ranking."""
    name: str
    """The place in the source, for messages."""


def read_judged(
    source: str, columns: Sequence[str], *, split: str = "train"
) -> tuple[list[str], Iterator[Judged]]:
    """The names of the scores, and the images with theirs: the columns named, or without any a ranking.

    Raises ValueError for a missing source, column or image, a score that is no number, and no rows.
    """
    rows, base = read_rows(source, select=lambda _, names: names, split=split, streaming=False)
    first = next(rows, None)
    if first is None:
        raise ValueError(f"got no rows in {source}; expected at least one image; check the file")
    rows = chain([first], rows)
    if columns:
        return list(columns), _scored(rows, base, columns)
    return [RANK], _ranked(rows, base)


def _kind(columns: Sequence[str]) -> tuple[str, str] | None:
    return next((kind for kind in RANKINGS if set(kind) <= set(columns)), None)


def _ranked(rows: Iterator[tuple[str, dict[str, Any]]], base: Path) -> Iterator[Judged]:
    for where, row in rows:
        kind = _kind(list(row))
        if kind is None:
            raise ValueError(
                f"{where}: got columns {listed(row)}; expected a ranking, such as generations and ranking; "
                "name the columns of scores, or the rewards that are to score the images"
            )
        prompt = prompt_text(where, row.get(first_of(row, PROMPT_COLUMNS) or ""))
        images, places = row[kind[0]], row[kind[1]]
        if not isinstance(images, list) or not isinstance(places, list) or len(images) != len(places):
            raise ValueError(
                f"{where}: got {kind[0]} and {kind[1]} that are no lists of one length; expected a place for "
                "each image; correct the row"
            )
        for number, (image, place) in enumerate(zip(images, places, strict=True)):
            cell = image_cell(where, image, _folder(base, image))
            score = RANKINGS[kind] * _number(f"{where} {kind[1]}", place)
            yield Judged(prompt, cell, (score,), where, f"{where} image {number + 1}")


def _folder(base: Path, image: Any) -> Path:
    """The folder beside a ranking in which the image lies."""
    if not isinstance(image, str):
        return base
    return next((base / side for side in SIDES if (base / side / image).exists()), base)


def _scored(
    rows: Iterator[tuple[str, dict[str, Any]]], base: Path, columns: Sequence[str]
) -> Iterator[Judged]:
    for where, row in rows:
        image, prompt = first_of(row, IMAGES), first_of(row, PROMPT_COLUMNS)
        known = {name: first_of(row, [name]) for name in columns}
        missing = [name for name, column in known.items() if column is None]
        if image is None or prompt is None or missing:
            wanted = missing[0] if missing else "image" if image is None else "prompt"
            raise ValueError(
                f"{where}: got columns {listed(row)}; expected image, prompt and {', '.join(columns)}; there "
                f"is no {wanted}: rename the columns"
            )
        text = prompt_text(where, row[prompt])
        scores = tuple(_number(f"{where} {name}", row[column]) for name, column in known.items() if column)
        yield Judged(text, image_cell(where, row[image], base), scores, text, where)


def _number(where: str, value: Any) -> float:
    """The score; NaN for an empty cell. Raises a Fault for what is no number."""
    if value is None or value == "":
        return math.nan
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.inf
    if math.isinf(number):
        raise Fault("with a score that is no number", f"{where}: got {quoted(value)}; expected a number")
    return number
