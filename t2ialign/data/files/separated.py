"""Rows of CSV and TSV files: every line is accounted for, and a quote that is not closed never eats rows.

CSV is RFC 4180: fields in quotes may hold separators, line breaks and doubled quotes. The separator is that
of comma, semicolon and tab which splits the header into most names. In TSV every line is a row and quotes are
plain text, as in PartiPrompts; only a field that is all in quotes, with the inner ones doubled, is one that a
spreadsheet put in quotes.
"""

from __future__ import annotations

import csv
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from t2ialign.data.files.lines import read_lines
from t2ialign.io.messages import listed, quoted

Record = tuple[int, list[str]]
"""(number of its first line, its fields)."""
NAMED_SEPARATOR = re.compile(r'"?sep=(.)"?')
"""The line by which Excel is told the separator."""

log = logging.getLogger(__name__)


def read_separated(
    path: Path, check: Callable[[str, list[str]], object] | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(where, row) of a .csv or .tsv file; blank lines and rows of nothing but separators are skipped.

    `check` is given where the header stands and its names. Raises ValueError, naming the line, for a name
    that stands there twice, a row with more or fewer fields than names, and a quote that is not closed.
    """
    tabs = path.suffix.lower() == ".tsv"
    records = _tsv(path) if tabs else _csv(path)
    number, header = next(records, (1, []))
    names = [name.strip() for name in header]
    where = f"{path} line {number}"
    if twice := [name for name, count in Counter(map(str.lower, filter(None, names))).items() if count > 1]:
        raise ValueError(f"{where}: got the column {quoted(twice[0])} twice; expected it once; rename one")
    if check is not None and names:
        check(where, [name for name in names if name])
    for number, cells in records:
        yield f"{path} line {number}", _row(f"{path} line {number}", names, cells, tabs=tabs)


def _row(where: str, names: list[str], cells: list[str], *, tabs: bool) -> dict[str, Any]:
    if len(cells) > len(names):
        advice = "save the table as CSV" if tabs else "put quotes round a text that holds the separator"
        raise ValueError(
            f"{where}: got more fields than the header names, {len(cells)} where it has {len(names)} "
            f"({listed(names)}); {advice}"
        )
    if len(cells) < len(names):
        advice = "save a table with line breaks in its fields as CSV" if tabs else "check its quotes"
        raise ValueError(
            f"{where}: got fewer fields than the header names, {len(cells)} where it has {len(names)} "
            f"({listed(names)}); leave a field empty, not out; {advice}"
        )
    for place, (name, cell) in enumerate(zip(names, cells, strict=True)):
        if not name and cell.strip() and place:  # the first may be the row's number, as pandas writes it
            raise ValueError(f"{where}: got {quoted(cell)} in a column without a name; name it in the header")
    return {name: cell.strip(" ") for name, cell in zip(names, cells, strict=True) if name}


def _tsv(path: Path) -> Iterator[Record]:
    width = 0
    for number, line in read_lines(path):
        if not line.strip():
            continue
        cells = [_unquoted(cell) for cell in line.split("\t")]
        width = width or len(cells)
        if len(cells) != width:  # a tab within quotes, perhaps
            with suppress(csv.Error):
                cells = next(csv.reader([line], delimiter="\t", strict=True))
        yield number, cells


def _unquoted(cell: str) -> str:
    inner = cell[1:-1]
    whole = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in inner.replace('""', "")
    return inner.replace('""', '"') if whole else cell


def _csv(path: Path) -> Iterator[Record]:
    skip, separator = _separator(path)
    lines = (line + "\n" for _, line in islice(read_lines(path), skip, None))
    reader = csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=True)
    long: list[int] = []
    while True:
        start = skip + reader.line_num + 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            raise _broken(f"{path} line {start}", skip + reader.line_num, error) from error
        if cells is None:
            break
        if skip + reader.line_num > start:
            long.append(start)
        if any(cell.strip() for cell in cells) or cells == [""]:
            yield start, cells
    if long:
        log.warning(
            "%s: in %d of its rows a field in quotes goes over several lines, first in line %d; check that "
            "its quotes are meant",
            path,
            len(long),
            long[0],
        )


def _broken(where: str, line: int, error: csv.Error) -> ValueError:
    """The row starts at `where`; the parser saw at `line` that it is wrong."""
    if "limit" in str(error):
        return ValueError(
            f"{where}: got a field that is not over after {csv.field_size_limit():,} characters; expected a "
            "text; close its quote, and keep images in files"
        )
    return ValueError(
        f"{where}: got a quote that is not closed, or has text behind it ({error}, line {line}); expected "
        'quotes round a whole field; close it, or write "" for a quote within quotes'
    )


def _separator(path: Path) -> tuple[int, str]:
    """(lines to skip before the header, the separator): the one that is named, else that of the header."""
    number, head = next(((number, line) for number, line in read_lines(path) if line.strip()), (0, ""))
    if named := NAMED_SEPARATOR.fullmatch(head.strip(" \r\n")):
        return number, named[1]
    return 0, max(",;\t", key=lambda mark: len(next(csv.reader([head], delimiter=mark), [])))
