"""Lines of text files in UTF-8, or in UTF-16 as Excel writes it; anything else is an error with its line."""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from pathlib import Path

from t2ialign.data.messages import quoted

UNPACK, SAVE = "unpack it first", 'save it as "CSV UTF-8" in the spreadsheet program'
FOREIGN = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), SAVE),
    **dict.fromkeys((".gz", ".tgz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar"), UNPACK),
    **dict.fromkeys((".arrow", ".feather"), "write it as parquet, with to_parquet of datasets or pandas"),
}
"""Endings of files that people have instead of a table that is read, and what to do with them."""


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text without its line end) of every line; a byte-order mark is dropped.

    Raises ValueError for a missing file, and, naming the line, for bytes that are no text.
    """
    if not path.is_file():
        raise ValueError(f"got {path}, which is no file; expected a text file; check the path")
    try:
        with path.open(encoding=_encoding(path), newline="") as file:
            for number, line in enumerate(file, 1):
                if "\0" in line:
                    raise ValueError(
                        f"{path} line {number}: got a NUL byte; expected text; save the file as UTF-8, or "
                        "check that it is a text file"
                    )
                yield number, line.rstrip("\r\n")
    except UnicodeError as error:
        raise ValueError(
            f"{_broken(path)}, which is not UTF-8; expected text in UTF-8; save the file so (Excel calls it "
            '"CSV UTF-8"), or convert it: iconv -f cp1252 -t utf-8'
        ) from error


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(4)
    if head in (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE):
        return "utf-32"
    return "utf-16" if head[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _broken(path: Path) -> str:
    """The first line that is not UTF-8; the decoder itself knows only the block of bytes."""
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"{path} line {number}: got {quoted(line[error.start : error.start + 20])}"
    return f"got {path}"
