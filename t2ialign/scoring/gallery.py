"""gallery.html: the best and worst images of each reward, sortable, as one file that needs no network."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from t2ialign.io import atomic
from t2ialign.scoring import output
from t2ialign.scoring.items import Source
from t2ialign.scoring.thumbnails import Place, thumbnails
from t2ialign.web.embedded import Shown
from t2ialign.web.pages import render as render_page

if TYPE_CHECKING:
    import pyarrow as pa

ERRORS = 100
"""Rows with an error that are listed; the table has them all."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Card:
    """A row of the table that is shown, the rewards it is a best or worst one of, and its image."""

    row: Row
    chosen_by: Sequence[str]
    image: Shown | None


def write(scores: pa.Table, source: Source, path: Path, *, top: int) -> None:
    """Write the page of the `top` best and worst rows of each reward; images are read again from `source`.

    Raises ValueError if the source no longer opens.
    """
    chosen = choose(scores, top)
    images = dict(thumbnails(source, {place: row["file"] for place, (row, _) in chosen.items()}))
    cards = [Card(row, names, images.get(place)) for place, (row, names) in chosen.items()]
    path.parent.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, render(source.name, scores, cards))


def choose(scores: pa.Table, top: int) -> dict[Place, tuple[Row, list[str]]]:
    """Place -> its row, and the rewards it is a best or worst one of; those of the first reward lead."""
    import pyarrow.compute as pc

    chosen: dict[Place, tuple[Row, list[str]]] = {}
    for name in output.rewards_of(scores):
        ranked = scores.filter(pc.is_valid(scores[name])).sort_by([(name, "descending")])
        count = len(ranked)
        worst = ranked.slice(max(top, count - top)) if count > top else ranked.slice(count)
        for part in (ranked.slice(0, top), worst):
            for row in part.to_pylist():
                chosen.setdefault((row["shard"], row["row"]), (row, []))[1].append(name)
    return chosen


def render(title: str, scores: pa.Table, cards: Sequence[Card]) -> str:
    """The page as HTML text: the summary, the cards with their controls, and rows with errors."""
    names = output.rewards_of(scores)
    broken = output.broken(scores)
    errors = _errors(scores)
    return render_page(
        "gallery.html",
        title=f"Scores of {title}",
        lead=(
            f"{len(scores)} rows, {broken} with an error. "
            "The images are the best and the worst of each reward."
        ),
        names=names,
        summary=output.summarise(scores),
        number=output.number,
        cards=[(card, *_data(card, names)) for card in cards],
        errors=errors,
        more_errors=broken - len(errors),
    )


def _data(card: Card, names: Sequence[str]) -> tuple[str, str]:
    """What the page's script reads of a card: its scores, and the places of the rewards that chose it."""
    values = json.dumps([card.row[name] for name in names])
    return values, json.dumps([names.index(name) for name in dict.fromkeys(card.chosen_by)])


def _errors(scores: pa.Table) -> list[Row]:
    import pyarrow.compute as pc

    rows: list[Row] = scores.filter(pc.is_valid(scores["error"])).slice(0, ERRORS).to_pylist()
    return rows
