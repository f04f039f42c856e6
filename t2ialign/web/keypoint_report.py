"""What a judged key-point benchmark found: files, a table for the terminal, a page that needs no network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from rewards.keypoints.taxonomy import categories, kinds
from t2ialign.evaluation.keypoints.accuracy import Accuracy, Judged, accuracy
from t2ialign.evaluation.statistics import Estimate, form
from t2ialign.io import atomic, jsonl
from t2ialign.web.markup import escaped
from t2ialign.web.report import PAGE, STYLE

RESULT, ROWS, PAGE_FILE = "keypoints.json", "keypoints.jsonl", "keypoints.html"
MISSED = 200
"""Key points that a page lists as not shown; keypoints.jsonl has them all."""
LONE = {
    "points": "all key points",
    "over_kinds": "mean over kinds",
    "pictures": "pictures with all correct",
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


def write(
    folder: Path, of: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], *, prompts_without_key_points: int
) -> tuple[dict[str, Any], Table]:
    """Write all three files; the contents of keypoints.json, and the table.

    `of` says what was judged by what. A row is a picture: id, file, prompt, error or None, and verdicts, each
    with kind, description, match (None if unreadable) and reason.
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
        "pictures": len({one.picture for one in judged}),
        "key_points": len(judged),
        "accuracy": left_out.to_json(),
        "unreadable": unreadable,
        "unreadable_as_wrong": as_wrong.to_json() if unreadable else None,
        "prompts_without_key_points": prompts_without_key_points,
        "errors": [{"file": row["file"], "error": row["error"]} for row in rows if row["error"] is not None],
    }
    title, found = f"Key points of {of['samples']}", list(lines(judged, left_out, as_wrong))
    jsonl.rewrite(folder / ROWS, flat)
    atomic.write_text(folder / PAGE_FILE, page(title, found, flat, lead(result)))
    atomic.write_json(folder / RESULT, result)
    return result, table(found, title)


def lead(result: Mapping[str, Any]) -> str:
    """What was judged and what could not be, as a sentence without its full stop."""
    judge = f"{result['backend']} ({result['weights']})" if result["weights"] else result["backend"]
    return (
        f"{result['key_points']} key points of {result['pictures']} pictures judged by {judge}; "
        f"{result['unreadable']} answers unreadable, {len(result['errors'])} pictures not judged, "
        f"{result['prompts_without_key_points']} prompts without a key point left out"
    )


def lines(judged: Sequence[Judged], readable: Accuracy, as_wrong: Accuracy) -> Iterator[Line]:
    """Kinds and then their category, category by category, then the figures over all."""
    blank = Counter(one.kind for one in judged if one.match is None)
    for category, title in categories().items():
        mine = [kind for kind in as_wrong.kinds if kinds()[kind].category == category]
        for kind in mine:
            both = readable.kinds.get(kind), as_wrong.kinds[kind]
            yield Line(category, kinds()[kind].name, *both, blank[kind])
        if mine:
            both = readable.categories.get(category), as_wrong.categories[category]
            yield Line(category, title, *both, sum(blank[kind] for kind in mine), total=True)
    for name, title in LONE.items():
        yield Line("", title, getattr(readable, name), getattr(as_wrong, name), blank.total(), total=True)


def table(found: Sequence[Line], title: str) -> Table:
    """Per cent with 95 % intervals; what unreadable answers change is shown only where there are some."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("key point", overflow="fold")
    some = any(line.unreadable for line in found)
    for name in ("n", "correct, %", *(("unreadable", "as wrong, %") if some else ())):
        shown.add_column(name, justify="right", overflow="fold")
    for before, line in zip([None, *found[:-1]], found, strict=True):
        if before is not None and before.section != line.section:
            shown.add_section()
        shown.add_row(line.name, *_cells(line, some), style="bold" if line.total else None)
    return shown


def page(title: str, found: Sequence[Line], rows: Sequence[Mapping[str, Any]], lead: str) -> str:
    """The page as HTML: the figures with bars, and key points that were judged not to be shown, with why.

    `rows` are those of keypoints.jsonl.
    """
    missed = [row for row in rows if row["correct"] is False]
    sections = {"Accuracy": _figures(found), **({"Not shown": _missed(missed)} if missed else {})}
    body = "".join(f"<section><h2>{name}</h2>{inside}</section>" for name, inside in sections.items())
    head = f"<header><h1>{escaped(title)}</h1><p>{escaped(lead)}</p></header>"
    return PAGE.format(title=escaped(title), style=STYLE + BARS, body=head + body)


def _figures(found: Sequence[Line]) -> str:
    some = any(line.unreadable for line in found)
    named = ("key point", "", "n", "correct", *(("unreadable", "as wrong") if some else ()))
    head = "".join(f"<th>{name}</th>" for name in named)
    body = "".join(_figure(line, some) for line in found)
    note = "<p><small>Per cent; 95 % intervals, resampled by prompt.</small></p>"
    return f"<table><tr>{head}</tr>{body}</table>{note}"


def _figure(line: Line, some: bool) -> str:
    width = 0.0 if line.accuracy is None else 100 * line.accuracy.mean
    bar = f'<td><div class="bar"><i style="width:{width:.1f}%"></i></div></td>'
    cells = "".join(f"<td>{cell}</td>" for cell in _cells(line, some))
    name = f"<b>{escaped(line.name)}</b>" if line.total else escaped(line.name)
    return f"<tr><th>{name}</th>{bar}{cells}</tr>"


def _cells(line: Line, some: bool) -> list[str]:
    more = [str(line.unreadable), _per_cent(line.as_wrong)] if some else []
    return [str(line.accuracy.count if line.accuracy else 0), _per_cent(line.accuracy), *more]


def _missed(missed: Sequence[Mapping[str, Any]]) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("picture", "prompt", "key point", "why"))
    keys = ("file", "prompt", "description", "reason")
    body = "".join(
        f"<tr>{''.join(f'<td>{escaped(row[key])}</td>' for key in keys)}</tr>" for row in missed[:MISSED]
    )
    left = len(missed) - MISSED
    return f"<table><tr>{head}</tr>{body}</table>" + (f"<p>And {left} more.</p>" if left > 0 else "")


def _per_cent(estimate: Estimate | None) -> str:
    return "-" if estimate is None else form(estimate, scale=100)


BARS = """
.bar { width: 160px; height: 12px; background: var(--line); border-radius: 2px; }
.bar i { display: block; height: 12px; background: #0072b2; border-radius: 2px; }
"""
