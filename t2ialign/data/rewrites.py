"""Rows a rewriter learns from: (prompt, thought, rewrite), and user prompts with their key points."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2ialign.data.files.tables import Row, Select, first_of, read_text
from t2ialign.data.prompts import EMPTY, PROMPT_COLUMNS, prompt_or_none, prompt_text
from t2ialign.data.skipped import Fault, Skipped
from t2ialign.data.sources import read_rows
from t2ialign.io.messages import listed, quoted

COLUMNS: dict[str, tuple[str, ...]] = {
    "prompt": PROMPT_COLUMNS,
    "thought": ("thought", "cot"),
    "rewrite": ("rewrite", "reprompt"),
    "points": ("points",),
}
"""Key of a row -> the names that its column may have."""


@dataclass(frozen=True)
class Triple:
    """A user's prompt, its interpretation (the thought) and its rewrite."""

    prompt: str
    thought: str
    rewrite: str


@dataclass(frozen=True)
class Wish:
    """A user's prompt, and its key points as JSON where the row has some."""

    prompt: str
    points: Any | None
    where: str
    """The row, for messages."""


def read_triples(source: str, *, thought: bool) -> list[Triple]:
    """Rows of a file, folder or Hub id that `sources.read_rows` opens; without `thought` it may be missing.

    Raises ValueError for a missing column, for a cell without text, and for no rows.
    """
    wanted = ["prompt", *(["thought"] if thought else []), "rewrite"]
    rows = [{name: _text(where, name, row[name]) for name in wanted} for where, row in _rows(source, wanted)]
    return [Triple(row["prompt"], row.get("thought", ""), row["rewrite"]) for row in rows]


def read_wishes(source: str) -> list[Wish]:
    """The same for prompts alone, with the column `points`, plain or as JSON text, where there is one.

    A .txt file has a prompt a line. As in `read_prompts` rows without a prompt are left out, with a warning.
    Raises ValueError likewise, and for a text that is no JSON.
    """
    skipped, wishes = Skipped(source), []
    for where, row in _rows(source, ["prompt"], ["points"]):
        skipped.rows += 1
        try:
            wishes.append(_wish(where, row))
        except Fault as fault:
            if fault.kind != EMPTY:
                raise
            skipped.add(fault, where)
    if not wishes:
        raise ValueError(f"got no prompts in {source} ({skipped.summary()}); expected some; fill them in")
    skipped.tell()
    return wishes


def _rows(
    source: str, wanted: list[str], more: list[str] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row under our names); `more` are columns that may be missing. Raises ValueError for no rows."""
    names, empty = [*wanted, *(more or [])], True

    def known(where: str, columns: Iterable[str]) -> dict[str, str]:
        columns_of = {
            name: column for name in names if (column := first_of(columns, COLUMNS[name])) is not None
        }
        if lacking := [name for name in wanted if name not in columns_of]:
            raise ValueError(
                f"{where}: got columns {listed(columns)}; expected {', '.join(wanted)}; rename what "
                f"stands for {lacking[0]}"
            )
        return columns_of

    for where, row in _opened(source, lambda where, columns: list(known(where, columns).values())):
        empty = False
        yield where, {name: row[column] for name, column in known(where, row).items()}
    if empty:
        raise ValueError(f"got no rows in {source}; expected at least one; check the file")


def _opened(source: str, select: Select) -> Iterator[Row]:
    path = Path(source).expanduser()
    if path.is_file() and path.suffix.lower() == ".txt":
        return read_text(path)
    return read_rows(source, select=select, split="train", streaming=True)[0]


def _text(where: str, name: str, value: Any) -> str:
    if name == "prompt":
        return prompt_text(where, value).strip()
    if not isinstance(value, str) or prompt_or_none(where, value) is None:
        raise ValueError(f"{where}: got {quoted(value)} for {name}; expected text; correct or remove the row")
    return value.strip()


def plain_points(points: Any) -> Any:
    """A cell of key points as if it came from a JSON file: CSV has text alone, Arrow null for a missing key.

    Raises ValueError for a text that is no JSON.
    """
    if isinstance(points, str):
        try:
            points = json.loads(points) if points.strip() else None
        except (ValueError, RecursionError) as error:
            raise ValueError(
                f"got {quoted(points)} for points; expected a list in JSON; correct or empty the cell"
            ) from error
    if not isinstance(points, list):
        return points
    return [
        {key: value for key, value in point.items() if value is not None}
        if isinstance(point, dict)
        else point
        for point in points
    ]


def _wish(where: str, row: dict[str, Any]) -> Wish:
    try:
        points = plain_points(row.get("points"))
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error
    return Wish(_text(where, "prompt", row["prompt"]), points, where)
