"""Rows of text files: JSON lines, JSON, CSV and TSV, streamed, each row with a name to blame in messages."""

import csv
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

Row = tuple[str, dict[str, Any]]
"""(where it stands, such as "pairs.jsonl line 3"; its columns)."""

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")


def read_table(path: Path) -> Iterator[Row]:
    """Rows of a .jsonl, .json (a list), .csv or .tsv file in UTF-8, with or without BOM; blank lines skipped.

    A JSON text that stands where a row should is the row {"prompt": text}. Raises ValueError, naming the
    line, for anything malformed.
    """
    readers = {".jsonl": _json_lines, ".json": _json_list, ".csv": _separated, ".tsv": _separated}
    reader = readers.get(path.suffix.lower())
    if reader is None:
        raise ValueError(f"got {path}; expected one of {', '.join(SUFFIXES)}; convert the file")
    return reader(path)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text without its line end) of every line. Raises ValueError if missing or not UTF-8."""
    if not path.is_file():
        raise ValueError(f"got {path}, which is no file; expected a text file; check the path")
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, line in enumerate(file, 1):
                yield number, line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"got {path}, which is not UTF-8 ({error.reason}); save it as UTF-8") from error


def first_of(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """The first of `names` among the columns, letter case aside, as the columns spell it."""
    known = {str(column).strip().lower(): column for column in columns}
    return next((known[name] for name in names if name in known), None)


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in read_lines(path):
        if line.strip():
            where = f"{path} line {number}"
            yield where, _object(where, _parse(where, line))


def _json_list(path: Path) -> Iterator[Row]:
    rows = _parse(str(path), "\n".join(line for _, line in read_lines(path)))
    if not isinstance(rows, list):
        raise ValueError(f"got a JSON {type(rows).__name__} in {path}; expected a list; or write JSON lines")
    for number, row in enumerate(rows, 1):
        where = f"{path} item {number}"
        yield where, _object(where, row)


def _separated(path: Path) -> Iterator[Row]:
    lines = (line + "\n" for _, line in read_lines(path))
    reader = csv.DictReader(lines, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
    try:
        for row in reader:
            where = f"{path} line {reader.line_num}"
            if None in row:  # an unquoted comma: what comes after it would be lost
                raise ValueError(f"{where}: got more fields than the header names; put quotes round the text")
            if any(row.values()):
                yield where, row
    except csv.Error as error:
        raise ValueError(
            f"{path} line {reader.line_num}: got {error}; expected plain {path.suffix}"
        ) from error


def _parse(where: str, text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: got {error.msg.lower()}; expected JSON; mend it there") from error


def _object(where: str, row: Any) -> dict[str, Any]:
    if isinstance(row, str):
        return {"prompt": row}
    if not isinstance(row, dict):
        raise ValueError(f"{where}: got a JSON {type(row).__name__}; expected an object with named columns")
    return row
