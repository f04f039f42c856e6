"""The page of a subject's proofs: every row with its numbers, and the claims' charts; one file, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.experiments.claim import Figure
from t2ialign.io import atomic
from t2ialign.web.markup import escaped
from t2ialign.web.report import PAGE, STYLE

MARKS = {"holds": "pass", "does not hold": "fail", "not tested": ""}
"""The style of each verdict."""


def write(
    file: Path, title: str, rows: Sequence[Mapping[str, Any]], figures: Mapping[int, Sequence[Figure]]
) -> None:
    """Write the page at once: rows as in proofs/NAME.json, figures by the number of their claim."""
    numbers = list(dict.fromkeys(row["number"] for row in rows))
    sections = [_section(n, [r for r in rows if r["number"] == n], figures.get(n, ())) for n in numbers]
    count = sum(row["verdict"] == "holds" for row in rows)
    lead = f"{count} of {len(rows)} rows hold; intervals are at 95 %, over the units that each row names."
    head = f"<header><h1>{escaped(title)}</h1><p>{escaped(lead)}</p></header>"
    atomic.write_text(file, PAGE.format(title=escaped(title), style=STYLE, body=head + "".join(sections)))


def _section(number: int, rows: Sequence[Mapping[str, Any]], figures: Sequence[Figure]) -> str:
    charts = "".join(
        f"<div><h3>{escaped(figure.title)}</h3><p><small>{escaped(figure.note)}</small></p>{figure.body}</div>"
        for figure in figures
    )
    body = "".join(_row(row) for row in rows)
    return f'<section><h2>Claim {escaped(number)}</h2>{body}<div class="charts">{charts}</div></section>'


def _row(row: Mapping[str, Any]) -> str:
    verdict, interval = row["verdict"], row["ci95"]
    style = MARKS[verdict]
    shown = "none" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
    facts = {
        "verdict": verdict,
        "95 % interval": shown,
        "paper": row["paper"] or "none",
        "seeds": ", ".join(map(str, row["seeds"])) or "none",
        "seconds": row["seconds"],
        "command": row["source"],
        "code": row["tree"],
        **_flat(row["measured"] or {}),
    }
    cells = "".join(
        f"<tr><th>{escaped(name)}</th><td>{escaped(_text(value))}</td></tr>" for name, value in facts.items()
    )
    mark = f'<span class="{style}">{escaped(verdict)}</span>' if style else escaped(verdict)
    table = f"<details><summary>numbers</summary><table>{cells}</table></details>"
    return f"<p><b>{escaped(row['claim'])}</b>: {mark}</p>{table}"


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            found |= _flat(value, f"{prefix}{name}, ")
        else:
            found[prefix + name] = value
    return found


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)
