"""Preference pairs, two images of one prompt of which one is preferred, from every layout users have."""

import logging
import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from t2ialign.data.files.tables import first_of
from t2ialign.data.images import ImageSource, image_of
from t2ialign.data.prompts import PROMPT_COLUMNS, prompt_text
from t2ialign.data.remote import Remote
from t2ialign.data.skipped import NO_IMAGE, Fault, Skipped
from t2ialign.data.sources import read_rows
from t2ialign.data.truth import NO_LABEL, truth
from t2ialign.io.messages import listed, quoted

Ties = Literal["drop", "half", "soft"]

LABELLED = ("jpg_0", "jpg_1", "label_0", "label_1")
RANKED = ("chosen", "rejected")
MARGIN = "margin"
PAIR_COLUMNS = (*LABELLED, *RANKED, "has_label", MARGIN)
"""Columns of pairs besides the prompt's."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairRecord:
    """One comparison; images stay as they came (bytes, a file, an open image) until pixels are needed."""

    prompt: str
    win: ImageSource
    lose: ImageSource
    weight: float = 1.0
    """1 for a preference, 1/2 for either order of a tie."""
    name: str = ""
    """The place in the source, for messages."""
    preference: float = 1.0
    """The winner's share of the labels: 1 where it was preferred outright, 1/2 for a tie read as "soft"."""
    margin: float = math.nan
    """How much better the winner is, by whatever scored them; NaN where nothing says so."""

    @property
    def images(self) -> Mapping[str, ImageSource]:
        """Both images, by what messages call them."""
        return {"winner": self.win, "loser": self.lose}

    @property
    def labels(self) -> Mapping[str, float]:
        """What a cache keeps beside the images."""
        return {"preference": self.preference, "margin": self.margin}

    @property
    def others(self) -> tuple[str, ...]:
        """Prompts that its own is set against: none."""
        return ()


def read_pairs(
    source: str,
    *,
    ties: Ties = "drop",
    split: str = "train",
    streaming: bool = False,
    limit: int | None = None,
    skipped: Skipped | None = None,
) -> Iterator[PairRecord]:
    """Stream the pairs of `source`: a file, a folder or a Hub name, see `sources.read_rows`.

    Columns are either Pick-a-Pic's jpg_0, jpg_1, label_0, label_1, caption, or prompt, chosen, rejected
    (images as bytes, {"bytes", "path"}, or paths relative to the file); a column margin may say how much
    better the winner is. The larger label wins; equal labels are a tie, which "drop" leaves out, "half" gives
    in both orders with weight 1/2, and "soft" once, with preference 1/2. Rows whose has_label is false are
    left out. At most `limit` records. `streaming` concerns the Hub alone. A row that cannot be used goes to
    `skipped`; without it the first one is an error.
    Raises ValueError for a missing source or column, a row without prompt, label or image or with the same
    image twice, no rows, none that can be used, only ties.
    """
    if ties not in get_args(Ties):
        raise ValueError(f"got ties={ties!r}; expected one of {', '.join(get_args(Ties))}")
    if limit is not None and limit < 1:
        raise ValueError(f"got limit {limit}; expected at least 1, or none for all pairs")
    rows, base = read_rows(
        source,
        select=lambda where, names: list(_columns(where, names).values()),
        split=split,
        streaming=streaming,
    )
    return _records(source, rows, base, ties=ties, limit=limit, skipped=skipped)


def _records(
    source: str,
    rows: Iterator[tuple[str, dict[str, Any]]],
    base: Path,
    *,
    ties: Ties,
    limit: int | None,
    skipped: Skipped | None,
) -> Iterator[PairRecord]:
    given = read = tied = 0
    strict, skipped = skipped is None, Skipped(source) if skipped is None else skipped
    for where, row in rows:
        read, skipped.rows = read + 1, skipped.rows + 1
        try:
            pairs = _pairs(where, row, base)
            used = pairs if len(pairs) < 2 else _tie(pairs, ties)
            if len(pairs) == 1:
                _check_different(where, pairs[0])
        except Fault as fault:
            if strict:
                raise
            skipped.add(fault, where)
            continue
        tied += len(pairs) == 2
        for record in used:
            yield record
            given += 1
            if given == limit:
                return
    if not read:
        raise ValueError(f"got no rows in {source}; expected at least one pair; check the file and the split")
    if not given:
        raise ValueError(_nothing(source, read, tied, skipped))
    log.info("%s: %d pairs of %d rows, %d ties (%s)", source, given, read, tied, ties)


def _nothing(source: str, read: int, tied: int, skipped: Skipped) -> str:
    if skipped.count:
        return f"got no pair in {source}: {skipped.summary()}; expected at least one; correct the rows"
    return (
        f"got {read} rows in {source}, {tied} of them ties and none with a preference; expected at least "
        "one preference; label the images, or keep ties with ties=half"
    )


def _pairs(where: str, row: dict[str, Any], base: Path) -> list[PairRecord]:
    """No record for a row without label, one for a preference, both orders for a tie."""
    row = {name: row[column] for name, column in _columns(where, list(row)).items()}
    order = [RANKED] if set(RANKED) <= row.keys() else _ranking(where, row)
    prompt = prompt_text(where, row["prompt"]) if order else ""
    weight, preference = 1.0 / max(len(order), 1), _share(row) if len(order) == 1 else 1.0
    images = {name: image_cell(f"{where} {name}", row[name], base) for pair in order for name in pair}
    more = weight, where, preference, _margin(where, row)
    return [PairRecord(prompt, images[win], images[lose], *more) for win, lose in order]


def _margin(where: str, row: Mapping[str, Any]) -> float:
    """The number of the column of margins; NaN without one. Raises a Fault for another value."""
    value = row.get(MARGIN)
    if value is None or value == "":
        return math.nan
    try:
        margin = float(value)
    except (TypeError, ValueError):
        margin = math.inf
    if math.isinf(margin):
        raise Fault(
            "with a margin that is no number",
            f"{where}: got margin {quoted(value)}; expected how much better the winner is; correct the row",
        )
    return margin


def image_cell(where: str, value: Any, base: Path) -> ImageSource:
    """What a table's cell holds, see `image_of`. Raises a Fault for what is no image."""
    try:
        return image_of(where, value, base)
    except Fault:
        raise
    except ValueError as error:
        raise Fault(NO_IMAGE, str(error)) from error


def _check_different(where: str, record: PairRecord) -> None:
    """Raise a Fault for two equal images, of which neither is preferred; a tie may have them."""
    if _is_same(record.win, record.lose):
        raise Fault(
            "with the same image as both sides",
            f"{where}: got {quoted(str(record.win))} as the chosen and the rejected image; expected two "
            "images; correct or drop the row",
        )


def _is_same(first: ImageSource, second: ImageSource) -> bool:
    if isinstance(first, Path) and isinstance(second, Path):
        try:
            return first == second or first.samefile(second)
        except (OSError, ValueError):  # one is missing: reading it will say so
            return False
    return isinstance(first, Remote) and first == second


def _tie(both: list[PairRecord], ties: Ties) -> list[PairRecord]:
    """The records of a tie that the setting `ties` wants, out of both orders."""
    if ties == "soft":
        return [replace(both[0], weight=1.0, preference=0.5)]
    return both if ties == "half" else []


def _share(row: Mapping[str, Any]) -> float:
    """The larger label's share of the two; 1 for rows that name the chosen image."""
    if set(RANKED) <= row.keys():
        return 1.0
    labels = float(row["label_0"]), float(row["label_1"])
    return max(labels) / sum(labels)


def is_pair_table(columns: Collection[str]) -> bool:
    """Whether a table with these columns holds pairs."""
    known = {column.strip().lower() for column in columns}
    return any(known >= set(images) for images in (RANKED, LABELLED))


def _columns(where: str, columns: list[str]) -> dict[str, str]:
    """Our name of each column that matters -> the table's, letter case and blanks around it aside."""
    prompt = first_of(columns, PROMPT_COLUMNS)
    for images in (RANKED, LABELLED):
        known = {name: first_of(columns, [name]) for name in (*images, "has_label", MARGIN)}
        named = {name: column for name, column in known.items() if column is not None}
        if prompt is not None and set(images) <= named.keys():
            return {"prompt": prompt, **named}
    raise Fault(
        "without a column that is needed",
        f"{where}: got columns {listed(columns)}; expected prompt, chosen, rejected or caption, "
        f"{', '.join(LABELLED)}; rename the columns",
    )


def _ranking(where: str, row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(winner, loser) columns: one preference, both orders of a tie, or nothing where nobody labelled."""
    if not _is_labelled(where, row):
        return []
    try:  # a CSV's labels are text
        first, second = float(row["label_0"]), float(row["label_1"])
    except (TypeError, ValueError):
        first = second = math.nan
    if not (0 <= first <= 1 and 0 <= second <= 1):
        raise Fault(
            NO_LABEL,
            f"{where}: got labels {quoted(row['label_0'])} and {quoted(row['label_1'])}; expected 1 and 0, "
            "0 and 1, or .5 and .5; drop the row",
        )
    if first == second:
        return [("jpg_0", "jpg_1"), ("jpg_1", "jpg_0")]
    return [("jpg_0", "jpg_1") if first > second else ("jpg_1", "jpg_0")]


def _is_labelled(where: str, row: Mapping[str, Any]) -> bool:
    """Whether `has_label` says so; an empty cell says no, a table without that column says yes."""
    value = row.get("has_label", True)
    empty = value is None or (isinstance(value, str) and not value.strip())
    return not empty and truth(where, "has_label", value)
