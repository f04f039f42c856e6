"""Rows of files, JSON, CSV, TSV, text and parquet: streamed, each with a name to blame in messages."""

import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from t2ialign.data.files.lines import FOREIGN, read_lines
from t2ialign.data.files.parquet import read_parquet
from t2ialign.data.files.separated import read_separated
from t2ialign.io.messages import quoted

Row = tuple[str, dict[str, Any]]
"""(where it stands, such as "pairs.jsonl line 3"; its columns)."""

Select = Callable[[str, list[str]], list[str]]
"""(where, column names) -> the columns to read; raises ValueError if one is missing."""

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
TABLES = (".parquet", *SUFFIXES)


def read_table(path: Path, select: Select | None = None) -> Iterator[Row]:
    """Rows of a .parquet, .jsonl, .json, .csv or .tsv file, or of a .txt, whose lines are prompts.

    Text is UTF-8 or UTF-16, a byte-order mark is dropped, blank lines are skipped. A JSON text that stands
    where a row should is the row {"prompt": text}. `select` is shown the columns of a file that has the same
    ones in every row, before the first; of parquet only what it names is read. Raises ValueError, naming the
    line, for anything malformed.
    """
    ending = path.suffix.lower()
    if ending == ".parquet":
        return read_parquet(path, select)
    if ending in (".csv", ".tsv"):
        return read_separated(path, select)
    readers = {".jsonl": _json_lines, ".json": _json, ".txt": read_text}
    if ending not in readers:
        raise ValueError(
            f"got {path}; expected {', '.join(TABLES)}; {FOREIGN.get(ending, 'convert the file')}"
        )
    return readers[ending](path)


def first_of(columns: Iterable[str], names: Iterable[str]) -> str | None:
    """The first of `names` among the columns, letter case aside, as the columns spell it."""
    known = {str(column).strip().lower(): column for column in columns}
    return next((known[name] for name in names if name in known), None)


def read_text(path: Path) -> Iterator[Row]:
    """Rows {"prompt": line} of a file, without blank lines. Raises ValueError as `read_lines` does."""
    for number, line in read_lines(path):
        if line.strip():
            yield f"{path} line {number}", {"prompt": line}


def _json_lines(path: Path) -> Iterator[Row]:
    for number, line in read_lines(path):
        if line.strip():
            where = f"{path} line {number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise _no_json(where, error) from error
            yield where, _object(where, row)


def _json(path: Path) -> Iterator[Row]:
    """Items of a list, or of an object whose values are rows: objects, or texts under ids or file names."""
    text = "\n".join(line for _, line in read_lines(path))
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        extra = isinstance(error, json.JSONDecodeError) and error.msg == "Extra data"
        if extra and text.lstrip().startswith(("{", '"')):  # JSON lines by another ending
            yield from _json_lines(path)
            return
        line = f" line {error.lineno}" if isinstance(error, json.JSONDecodeError) else ""
        raise _no_json(f"{path}{line}", error) from error
    if isinstance(rows, dict) and _is_keyed(rows):
        rows = rows.values()
    elif not isinstance(rows, list):
        raise ValueError(
            f"got a JSON {type(rows).__name__} in {path}; expected a list of objects or texts, or an object "
            "of objects; or write JSON lines"
        )
    for number, row in enumerate(rows, 1):
        where = f"{path} item {number}"
        yield where, _object(where, row)


def _is_keyed(rows: dict[str, Any]) -> bool:
    """Whether the values are rows: objects, or texts under numbers or names of files, as in DPG-Bench."""
    if all(isinstance(row, dict) for row in rows.values()):
        return bool(rows)
    return all(isinstance(row, str) and (key.isdigit() or Path(key).suffix) for key, row in rows.items())


def _no_json(where: str, error: ValueError | RecursionError) -> ValueError:
    why = error.msg.lower() if isinstance(error, json.JSONDecodeError) else str(error)
    comma = ", such as a comma too many" if why.startswith("expecting") else ""
    return ValueError(f"{where}: got text that is no JSON ({why}); expected JSON; correct it there{comma}")


def _object(where: str, row: Any) -> dict[str, Any]:
    if isinstance(row, str):
        return {"prompt": row}
    if not isinstance(row, dict):
        raise ValueError(
            f"{where}: got a JSON {type(row).__name__}, {quoted(row)}; expected an object with named "
            "columns; correct it, or name a file .json that is one list"
        )
    return row
