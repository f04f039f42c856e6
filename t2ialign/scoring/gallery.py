"""gallery.html: the best and worst pictures of each reward, sortable, as one file that needs no network."""

from __future__ import annotations

import base64
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from t2ialign.io import atomic
from t2ialign.io.inside import lies_within
from t2ialign.scoring import output
from t2ialign.scoring.decode import read_picture
from t2ialign.scoring.items import Item, Source
from t2ialign.web import report
from t2ialign.web.markup import escaped

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger(__name__)

SIDE = 224
"""Longest side of a thumbnail in pixels."""
ERRORS = 100
"""Rows with an error that are listed; the table has them all."""

Place = tuple[int, int]
"""Shard and row."""
Row = dict[str, Any]


@dataclass(frozen=True)
class Card:
    """A row of the table that is shown, the rewards it is a best or worst one of, and its picture."""

    row: Row
    chosen_by: Sequence[str]
    thumbnail: str


def write(scores: pa.Table, source: Source, path: Path, *, top: int) -> None:
    """Write the page of the `top` best and worst rows of each reward; pictures are read again from `source`.

    Raises ValueError if the source no longer opens.
    """
    chosen = choose(scores, top)
    thumbnails = dict(_thumbnails(source, {place: row["file"] for place, (row, _) in chosen.items()}))
    cards = [Card(row, names, thumbnails.get(place, "")) for place, (row, names) in chosen.items()]
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
    errors = _errors(scores)
    head = (
        f"<header><h1>Scores of {escaped(title)}</h1>"
        f"<p>{len(scores)} rows, {output.broken(scores)} with an error. "
        "The pictures are the best and the worst of each reward.</p></header>"
    )
    sections = [("Summary", _summary(scores)), ("Best and worst", _controls(names) + _grid(cards, names))]
    sections += [("Errors", errors)] if errors else []
    body = "".join(f"<section><h2>{name}</h2>{inside}</section>" for name, inside in sections)
    style = report.STYLE + STYLE
    return report.PAGE.format(title=f"Scores of {escaped(title)}", style=style, body=head + body + SCRIPT)


def _thumbnails(source: Source, wanted: Mapping[Place, str]) -> Iterator[tuple[Place, str]]:
    """Pictures of places and file names as data: URIs; shards are read no further than needed.

    One that is gone since it was scored, or in whose place another file lies now, is left out, and so is one
    that lies outside the folder that is the source, by a link or a table in it: the page may be passed on.
    """
    outside = 0
    for shard in sorted({shard for shard, _ in wanted}):
        left = {place for place in wanted if place[0] == shard}
        for item in source.read(shard):
            place = item.shard, item.row
            if place not in left:
                continue
            left.discard(place)
            if _is_outside(source, item):
                outside += 1
            else:
                with suppress(ValueError):
                    if output.text(item.file) == wanted[place]:
                        yield place, _data_uri(read_picture(item))
            if not left:
                break
    if outside:
        log.warning(
            "%s: %d images lie outside the folder and are not shown on the page; name them by a table to "
            "show them",
            source.name,
            outside,
        )


def _is_outside(source: Source, item: Item) -> bool:
    return (
        source.root is not None and isinstance(item.image, Path) and not lies_within(source.root, item.image)
    )


def _data_uri(image: Image.Image) -> str:
    if max(image.size) <= report.PIXEL_ART:
        return report.data_uri(image)
    image.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    image.save(stream, "jpeg", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _summary(scores: pa.Table) -> str:
    head = "".join(f"<th>{name}</th>" for name in ("reward", "n", "mean", "sd", "min", "max", "errors"))
    lines = "".join(
        f"<tr><th>{escaped(name)}</th><td>{one.count}</td>"
        + "".join(f"<td>{output.number(value)}</td>" for value in (one.mean, one.sd, one.low, one.high))
        + f"<td>{one.errors}</td></tr>"
        for name, one in output.summarise(scores).items()
    )
    return f"<table><tr>{head}</tr>{lines}</table>"


def _controls(names: Sequence[str]) -> str:
    rewards = "".join(f'<option value="{index}">{escaped(name)}</option>' for index, name in enumerate(names))
    return (
        f'<p class="controls"><label>Reward <select id="reward">{rewards}</select></label> '
        '<label>Order <select id="order"><option value="-1">best first</option><option value="1">worst first'
        '</option></select></label> <label>Prompt or file has <input id="words" type="search"></label></p>'
    )


def _grid(cards: Sequence[Card], names: Sequence[str]) -> str:
    return f'<div class="grid" id="cards">{"".join(_card(card, names) for card in cards)}</div>'


def _card(card: Card, names: Sequence[str]) -> str:
    row = card.row
    values = escaped(json.dumps([row[name] for name in names]))
    of = escaped(json.dumps([names.index(name) for name in dict.fromkeys(card.chosen_by)]))
    file, prompt = escaped(row["file"]), escaped(row["prompt"] or "")
    picture = f'<img src="{card.thumbnail}" alt="{file}">' if card.thumbnail else "<p>no picture</p>"
    lines = "".join(f"<tr><th>{escaped(name)}</th><td>{output.number(row[name])}</td></tr>" for name in names)
    return (
        f'<figure class="scored" data-values="{values}" data-of="{of}">{picture}'
        f"<figcaption>{prompt} <small>{file}</small></figcaption><table>{lines}</table></figure>"
    )


def _errors(scores: pa.Table) -> str:
    import pyarrow.compute as pc

    rows = scores.filter(pc.is_valid(scores["error"])).slice(0, ERRORS).to_pylist()
    lines = "".join(
        f"<tr><th>{escaped(row['file'])}</th><td>{escaped(row['error'])}</td></tr>" for row in rows
    )
    more = output.broken(scores) - len(rows)
    note = f"<p>And {more} more, which the table of scores has.</p>" if more else ""
    return f"<table>{lines}</table>{note}" if lines else ""


STYLE = """
.controls { display: flex; flex-wrap: wrap; gap: 8px 24px; }
.scored img { display: block; max-width: 100%; height: auto; }
.scored img { border: 1px solid var(--line); border-radius: 6px; }
.scored table { width: 100%; font-size: .8rem; }
.scored th, .scored td { padding: 1px 0; }
.scored td { text-align: right; }
.scored[hidden] { display: none; }
"""

SCRIPT = """<script>
const grid = document.getElementById("cards"), controls = ["reward", "order", "words"];
const cards = [...grid.children].map(card => ({
  card, text: card.querySelector("figcaption").textContent.toLowerCase(),
  values: JSON.parse(card.dataset.values), of: JSON.parse(card.dataset.of)
}));
function arrange() {
  const [reward, order, words] = controls.map(id => document.getElementById(id).value);
  const sign = Number(order), column = Number(reward);
  cards.sort((a, b) => sign * (a.values[column] - b.values[column]));
  for (const { card, of, text } of cards) {
    card.hidden = !of.includes(column) || !text.includes(words.toLowerCase());
    grid.append(card);
  }
}
for (const id of controls) document.getElementById(id).addEventListener("input", arrange);
arrange();
</script>"""
