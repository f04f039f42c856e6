"""The page of a subject's proofs: every row with its numbers, and the claims' charts; one file, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from scripts.experiments.claim import Figure
from t2ialign.io import atomic
from t2ialign.web.pages import render

MARKS = {"holds": "pass", "does not hold": "fail", "not tested": ""}
"""The style of each verdict."""


def write(
    file: Path, title: str, rows: Sequence[Mapping[str, Any]], figures: Mapping[int, Sequence[Figure]]
) -> None:
    """Write the page at once: rows as in proofs/NAME.json, figures by the number of their claim."""
    sections: dict[int, list[tuple[Mapping[str, Any], dict[str, str]]]] = {}
    for row in rows:
        sections.setdefault(row["number"], []).append((row, _facts(row)))
    count = sum(row["verdict"] == "holds" for row in rows)
    lead = f"{count} of {len(rows)} rows hold; intervals are at 95 %, over the units that each row names."
    page = render("experiment.html", title=title, lead=lead, sections=sections, figures=figures, marks=MARKS)
    atomic.write_text(file, page)


def _facts(row: Mapping[str, Any]) -> dict[str, str]:
    interval = row["ci95"]
    facts = {
        "verdict": row["verdict"],
        "95 % interval": "none" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}",
        "paper": row["paper"] or "none",
        "seeds": ", ".join(map(str, row["seeds"])) or "none",
        "seconds": row["seconds"],
        "command": row["source"],
        "code": row["tree"],
        **_flat(row["measured"] or {}),
    }
    return {name: _text(value) for name, value in facts.items()}


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}, ") if isinstance(value, Mapping) else {prefix + name: value}
    return flat


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(_text(item) for item in value)
    return str(value)
