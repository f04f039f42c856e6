"""Preference pairs, two pictures of one prompt of which one is preferred, from every layout users have."""

import logging
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from t2ialign.data.images import ImageSource, picture_of
from t2ialign.data.prompts import PROMPT_COLUMNS
from t2ialign.data.sources import read_rows
from t2ialign.data.tables import first_of

Ties = Literal["drop", "half", "soft"]

LABELLED = ("jpg_0", "jpg_1", "label_0", "label_1")
RANKED = ("chosen", "rejected")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class PairRecord:
    """One comparison; pictures stay as they came (bytes, a file, an open picture) until pixels are needed."""

    prompt: str
    win: ImageSource
    lose: ImageSource
    weight: float = 1.0
    """1 for a preference, 1/2 for either order of a tie."""
    name: str = ""
    """Where it was read, for messages."""
    preference: float = 1.0
    """The winner's share of the labels: 1 where it was preferred outright, 1/2 for a tie read as "soft"."""


def read_pairs(
    source: str,
    *,
    ties: Ties = "drop",
    split: str = "train",
    streaming: bool = False,
    limit: int | None = None,
) -> Iterator[PairRecord]:
    """Stream the pairs of `source`: a file, a folder or a Hub name, see `sources.read_rows`.

    Columns are either Pick-a-Pic's jpg_0, jpg_1, label_0, label_1, caption, or prompt, chosen, rejected
    (pictures as bytes, {"bytes", "path"}, or paths relative to the file). The larger label wins; equal
    labels are a tie, which "drop" leaves out, "half" gives in both orders with weight 1/2, and "soft" once,
    with preference 1/2. Rows whose has_label is false are left out. At most `limit` records. `streaming`
    concerns the Hub alone.
    Raises ValueError for a missing source or column, a row without prompt or picture, no rows, only ties.
    """
    if ties not in get_args(Ties):
        raise ValueError(f"got ties={ties!r}; expected one of {', '.join(get_args(Ties))}")
    if limit is not None and limit < 1:
        raise ValueError(f"got limit {limit}; expected at least 1, or none for all pairs")
    rows, base = read_rows(source, select=_select, split=split, streaming=streaming)
    return _records(source, rows, base, ties=ties, limit=limit)


def _records(
    source: str, rows: Iterator[tuple[str, dict[str, Any]]], base: Path, *, ties: Ties, limit: int | None
) -> Iterator[PairRecord]:
    given = read = tied = 0
    for where, row in rows:
        read += 1
        found = _pairs(where, row, base)
        tied += len(found) == 2
        for record in found if len(found) < 2 else _tie(found, ties):
            yield record
            given += 1
            if given == limit:
                return
    if not read:
        raise ValueError(f"got no rows in {source}; expected at least one pair; check the file and the split")
    if not given:
        raise ValueError(
            f"got {read} rows in {source}, {tied} of them ties and none with a preference; expected at least "
            "one preference; label the pictures, or keep ties with ties=half"
        )
    log.info("%s: %d pairs of %d rows, %d ties (%s)", source, given, read, tied, ties)


def _pairs(where: str, row: dict[str, Any], base: Path) -> list[PairRecord]:
    """No record for a row without label, one for a preference, both orders for a tie."""
    prompt = row[_select(where, list(row))[0]]
    if not isinstance(prompt, str):
        raise ValueError(f"{where}: got prompt {prompt!r}; expected text; drop the row or fill it in")
    order = [RANKED] if set(RANKED) <= row.keys() else _ranking(where, row)
    weight, preference = 1.0 / max(len(order), 1), _share(row) if len(order) == 1 else 1.0
    pictures = {name: picture_of(f"{where} {name}", row[name], base) for pair in order for name in pair}
    return [
        PairRecord(prompt, pictures[win], pictures[lose], weight, where, preference) for win, lose in order
    ]


def _tie(both: list[PairRecord], ties: Ties) -> list[PairRecord]:
    """Of both orders of a tie what is asked for."""
    if ties == "soft":
        return [replace(both[0], weight=1.0, preference=0.5)]
    return both if ties == "half" else []


def _share(row: Mapping[str, Any]) -> float:
    """The larger label's share of the two; 1 for rows that name the chosen picture."""
    if set(RANKED) <= row.keys():
        return 1.0
    labels = float(row["label_0"]), float(row["label_1"])
    return max(labels) / sum(labels)


def _select(where: str, columns: list[str]) -> list[str]:
    """Of the columns found those that matter, the prompt's first."""
    prompt = first_of(columns, PROMPT_COLUMNS)
    for pictures in (RANKED, LABELLED):
        if prompt is not None and set(pictures) <= set(columns):
            return [prompt, *pictures, *(["has_label"] if "has_label" in columns else [])]
    raise ValueError(
        f"{where}: got columns {', '.join(columns)}; expected prompt, chosen, rejected or caption, "
        f"{', '.join(LABELLED)}; rename the columns"
    )


def _ranking(where: str, row: Mapping[str, Any]) -> list[tuple[str, str]]:
    """(winner, loser) columns: one preference, both orders of a tie, or nothing where nobody labelled."""
    if not _labelled(where, row.get("has_label", True)):
        return []
    try:  # a CSV's labels are text
        first, second = float(row["label_0"]), float(row["label_1"])
    except (TypeError, ValueError):
        first = second = math.nan
    if not (0 <= first <= 1 and 0 <= second <= 1):
        raise ValueError(
            f"{where}: got labels {row['label_0']!r} and {row['label_1']!r}; expected 1 and 0, 0 and 1, or "
            ".5 and .5; drop the row"
        )
    if first == second:
        return [("jpg_0", "jpg_1"), ("jpg_1", "jpg_0")]
    return [("jpg_0", "jpg_1") if first > second else ("jpg_1", "jpg_0")]


def _labelled(where: str, value: Any) -> bool:
    if not isinstance(value, str):
        return bool(value)
    known = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False, "": False}
    if (word := value.strip().lower()) not in known:  # a CSV's truth is text
        raise ValueError(f"{where}: got has_label {value!r}; expected true or false; mend the row")
    return known[word]
