"""Single images with a prompt, each liked or not, from every layout users have."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from t2ialign.data.captioned import captioned_rows, is_captioned
from t2ialign.data.files.tables import first_of
from t2ialign.data.images import ImageSource
from t2ialign.data.pairs import PAIR_COLUMNS, image_cell, is_pair_table, read_pairs
from t2ialign.data.prompts import PROMPT_COLUMNS, prompt_text
from t2ialign.data.skipped import Fault, Skipped
from t2ialign.data.sources import read_rows
from t2ialign.data.truth import truth
from t2ialign.io.messages import listed

IMAGE_COLUMNS = ("image", "file_name", "filename", "file")
"""The names of a column of images, in order of preference; letter case does not matter."""
LIKED = "liked"


@dataclass(frozen=True)
class RatedRecord:
    """One image of a prompt; it stays as it came until pixels are needed."""

    prompt: str
    image: ImageSource
    liked: bool = True
    name: str = ""
    """The place in the source, for messages."""
    weight: float = 1.0

    @property
    def images(self) -> Mapping[str, ImageSource]:
        """The image, which messages call by its row alone."""
        return {"": self.image}

    @property
    def labels(self) -> Mapping[str, float]:
        """What a cache keeps beside the image."""
        return {LIKED: float(self.liked)}

    @property
    def others(self) -> tuple[str, ...]:
        """Prompts that its own is set against: none."""
        return ()


def read_rated(
    source: str,
    *,
    split: str = "train",
    streaming: bool = False,
    limit: int | None = None,
    skipped: Skipped | None = None,
) -> Iterator[RatedRecord]:
    """Stream the images of `source`: a file, a folder or a Hub name, as `sources.read_rows` opens them.

    Columns are prompt, image and liked (true or false; without that column all are liked); a folder is one of
    images with captions beside them, or has such sub-folders liked/ and disliked/. Of preference pairs, in
    any form that `read_pairs` takes, each winner is liked and each loser is not; ties are left out. At most
    `limit` records. A row that cannot be used goes to `skipped`; without it the first one is an error.
    Raises ValueError for a missing source or column, a row without prompt, image or label, and for no rows.
    """
    path = Path(source).expanduser()
    if path.is_dir() and is_captioned(path):
        rows, base = captioned_rows(path), Path()
    else:
        rows, base = read_rows(source, select=_wanted, split=split, streaming=streaming)
    first = next(rows, None)
    if first is None:
        raise ValueError(
            f"got no rows in {source}; expected at least one image; check the file and the split"
        )
    if is_pair_table(list(first[1])):
        pairs = read_pairs(source, split=split, streaming=streaming, skipped=skipped)
        return _upto(limit, _of_pairs(pairs))
    return _upto(limit, _records(source, chain([first], rows), base, skipped))


def _upto(limit: int | None, records: Iterator[RatedRecord]) -> Iterator[RatedRecord]:
    for number, record in enumerate(records):
        if number == limit:
            return
        yield record


def _of_pairs(pairs: Any) -> Iterator[RatedRecord]:
    for pair in pairs:
        yield RatedRecord(pair.prompt, pair.win, True, f"{pair.name} winner".strip())
        yield RatedRecord(pair.prompt, pair.lose, False, f"{pair.name} loser".strip())


def _records(
    source: str, rows: Iterator[tuple[str, dict[str, Any]]], base: Path, skipped: Skipped | None
) -> Iterator[RatedRecord]:
    given, strict = 0, skipped is None
    skipped = Skipped(source) if skipped is None else skipped
    for where, row in rows:
        skipped.rows += 1
        try:
            record = _record(where, row, base)
        except Fault as fault:
            if strict:
                raise
            skipped.add(fault, where)
            continue
        given += 1
        yield record
    if not given:
        raise ValueError(
            f"got no image in {source}: {skipped.summary()}; expected at least one; correct the rows"
        )


def _record(where: str, row: dict[str, Any], base: Path) -> RatedRecord:
    columns = _columns(where, list(row))
    prompt = prompt_text(where, row[columns["prompt"]])
    liked = truth(where, LIKED, row[columns[LIKED]]) if LIKED in columns else True
    return RatedRecord(prompt, image_cell(where, row[columns["image"]], base), liked, where)


def _wanted(where: str, columns: list[str]) -> list[str]:
    """The columns to read of a table that has the same ones in every row."""
    if is_pair_table(columns):
        return [column for column in columns if column.strip().lower() in (*PROMPT_COLUMNS, *PAIR_COLUMNS)]
    return list(_columns(where, columns).values())


def _columns(where: str, columns: list[str]) -> dict[str, str]:
    """Our name of each column that matters -> the table's, letter case and blanks around it aside."""
    names = {"prompt": PROMPT_COLUMNS, "image": IMAGE_COLUMNS, LIKED: (LIKED,)}
    known = {name: first_of(columns, those) for name, those in names.items()}
    named = {name: column for name, column in known.items() if column is not None}
    if not {"prompt", "image"} <= named.keys():
        raise Fault(
            "without a column that is needed",
            f"{where}: got columns {listed(columns)}; expected prompt, image and liked, or the columns of "
            "pairs; rename the columns",
        )
    return named
