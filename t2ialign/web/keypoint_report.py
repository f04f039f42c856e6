"""The results of a judged key-point benchmark: files, a table for the terminal, a page without network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from rewards.keypoints.taxonomy import categories, kinds
from rewards.keypoints.verdicts import SHOWN
from t2ialign.evaluation.keypoints.accuracy import Accuracy, Judged, accuracy
from t2ialign.evaluation.statistics import Estimate, form
from t2ialign.io import atomic, jsonl
from t2ialign.web.embedded import Shown
from t2ialign.web.pages import render as render_page

RESULT, ROWS, PAGE_FILE = "keypoints.json", "keypoints.jsonl", "keypoints.html"
MISSED = 200
"""Key points that a page lists as not shown; keypoints.jsonl has them all."""
IMAGES = 48
"""Images that a page shows: the first of those that miss a key point."""
LONE = {
    "points": "all key points",
    "over_kinds": "mean over kinds",
    "images": "images with all correct",
}


@dataclass(frozen=True)
class Line:
    """One figure: unreadable answers left out in `accuracy`, wrong in `as_wrong`; `total` is over kinds."""

    section: str
    name: str
    accuracy: Estimate | None
    as_wrong: Estimate | None
    unreadable: int
    total: bool = False


@dataclass(frozen=True)
class Card:
    """An image with what was judged of it; `verdicts` are its rows of keypoints.jsonl."""

    file: str
    prompt: str
    image: Shown | None
    verdicts: list[Mapping[str, Any]]


def write(
    folder: Path,
    of: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    *,
    prompts_without_key_points: int,
    images: Mapping[str, Shown] | None = None,
) -> tuple[dict[str, Any], Table]:
    """Write all three files; the contents of keypoints.json, and the table.

    `of` says what was judged by what. A row is an image: id, file, prompt, error or None, and verdicts, each
    with kind, description, match (None if unreadable) and reason. `images` are those of `missing`, by id.
    """
    flat, judged = [], []
    for row in rows:
        for verdict in row["verdicts"]:
            one = Judged(row["id"], row["prompt"], verdict["kind"], verdict["match"])
            judged.append(one)
            names = {name: row[name] for name in ("id", "file", "prompt")}
            flat.append({**names, **verdict, "correct": one.correct})
    left_out, as_wrong = accuracy(judged), accuracy(judged, unreadable_is_wrong=True)
    unreadable = sum(one.match is None for one in judged)
    result = {
        **of,
        "pictures": len({one.image for one in judged}),
        "key_points": len(judged),
        "accuracy": left_out.to_json(),
        "unreadable": unreadable,
        "unreadable_as_wrong": as_wrong.to_json() if unreadable else None,
        "prompts_without_key_points": prompts_without_key_points,
        "errors": [{"file": row["file"], "error": row["error"]} for row in rows if row["error"] is not None],
    }
    title, table_lines = f"Key points of {of['samples']}", list(lines(judged, left_out, as_wrong))
    jsonl.rewrite(folder / ROWS, flat)
    atomic.write_text(folder / PAGE_FILE, page(title, table_lines, flat, f"{lead(result)}.", images or {}))
    atomic.write_json(folder / RESULT, result)
    return result, table(table_lines, title)


def lead(result: Mapping[str, Any]) -> str:
    """What was judged and what could not be, as a sentence without its full stop."""
    judge = f"{result['backend']} ({result['weights']})" if result["weights"] else result["backend"]
    return (
        f"{result['key_points']} key points of {result['pictures']} images judged by {judge}; "
        f"{result['unreadable']} answers unreadable, {len(result['errors'])} images not judged, "
        f"{result['prompts_without_key_points']} prompts without a key point left out"
    )


def lines(judged: Sequence[Judged], readable: Accuracy, as_wrong: Accuracy) -> Iterator[Line]:
    """Kinds and then their category, category by category, then the figures over all."""
    blank = Counter(one.kind for one in judged if one.match is None)
    for category, title in categories().items():
        kinds_of_category = [kind for kind in as_wrong.kinds if kinds()[kind].category == category]
        for kind in kinds_of_category:
            both = readable.kinds.get(kind), as_wrong.kinds[kind]
            yield Line(category, kinds()[kind].name, *both, blank[kind])
        if kinds_of_category:
            both = readable.categories.get(category), as_wrong.categories[category]
            yield Line(category, title, *both, sum(blank[kind] for kind in kinds_of_category), total=True)
    for name, title in LONE.items():
        yield Line("", title, getattr(readable, name), getattr(as_wrong, name), blank.total(), total=True)


def table(rows: Sequence[Line], title: str) -> Table:
    """Per cent with 95 % intervals; what unreadable answers change is shown only where there are some."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("key point", overflow="fold")
    some = any(line.unreadable for line in rows)
    for name in ("n", "correct, %", *(("unreadable", "as wrong, %") if some else ())):
        shown.add_column(name, justify="right", overflow="fold")
    for before, line in zip([None, *rows[:-1]], rows, strict=True):
        if before is not None and before.section != line.section:
            shown.add_section()
        shown.add_row(line.name, *_cells(line, some), style="bold" if line.total else None)
    return shown


def missing(rows: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The rows of images that miss a key point, as many as a page shows; a row is as in `write`."""
    wrong = [row for row in rows if any(_is_wrong(one["match"]) for one in row["verdicts"])]
    return wrong[:IMAGES]


def page(
    title: str,
    table_lines: Sequence[Line],
    rows: Sequence[Mapping[str, Any]],
    lead: str,
    images: Mapping[str, Shown] | None = None,
) -> str:
    """The page as HTML: the figures with bars, images with what they miss, and every key point not shown.

    `rows` are those of keypoints.jsonl; an image that `images` lacks, by id, is named without it.
    """
    cards: dict[str, Card] = {}
    for row in rows:
        image = (images or {}).get(row["id"])
        cards.setdefault(row["id"], Card(row["file"], row["prompt"], image, [])).verdicts.append(row)
    wrong = [card for card in cards.values() if any(row["correct"] is False for row in card.verdicts)]
    missed = [row for row in rows if row["correct"] is False]
    return render_page(
        "keypoints.html",
        title=title,
        lead=lead,
        totals=[line for line in table_lines if line.total],
        kinds=[(categories().get(line.section, ""), line) for line in table_lines if not line.total],
        unreadable=any(line.unreadable for line in table_lines),
        cards=wrong[:IMAGES],
        missed=missed[:MISSED],
        more=len(missed) - MISSED,
    )


def _is_wrong(match: float | None) -> bool:
    return match is not None and match <= SHOWN


def _cells(line: Line, some: bool) -> list[str]:
    more = [str(line.unreadable), _per_cent(line.as_wrong)] if some else []
    return [str(line.accuracy.count if line.accuracy else 0), _per_cent(line.accuracy), *more]


def _per_cent(estimate: Estimate | None) -> str:
    return "-" if estimate is None else form(estimate, scale=100)
