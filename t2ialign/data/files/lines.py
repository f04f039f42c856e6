"""Lines of text files in UTF-8, or in UTF-16 as Excel writes it; anything else is an error with its line."""

from __future__ import annotations

import codecs
import os
import time
from collections.abc import Iterator
from pathlib import Path

from t2ialign.io.messages import quoted

UNPACK, SAVE = "unpack it first", 'save it as "CSV UTF-8" in the spreadsheet program'
FOREIGN = {
    **dict.fromkeys((".xlsx", ".xls", ".xlsm", ".ods", ".numbers"), SAVE),
    **dict.fromkeys((".gz", ".tgz", ".zip", ".bz2", ".xz", ".zst", ".7z", ".rar", ".tar"), UNPACK),
    **dict.fromkeys((".arrow", ".feather"), "write it as parquet, with to_parquet of datasets or pandas"),
}
"""Endings of files that people have instead of a table that is read, and what to do with them."""

LARGEST = 64_000_000
"""Bytes that are read from a pipe."""
WAIT, PAUSE = 5, 0.05
"""Seconds until writing to a pipe must begin, and between two looks at it."""


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """(number from 1, text without its line end) of every line; a byte-order mark is dropped.

    A pipe, as a shell makes of <(command), is read to its end, once. Raises ValueError for a missing file,
    and, naming the line, for bytes that are no text.
    """
    if path.is_fifo():
        yield from enumerate(_piped(path).splitlines(), 1)
        return
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
    except OSError as error:  # which may not name the file
        raise ValueError(
            f"got {path}, which cannot be read ({error.strerror}); expected a text file; check the path"
        ) from error
    except UnicodeError as error:
        raise ValueError(
            f"{_broken(path)}, which is not UTF-8; expected text in UTF-8; save the file in that encoding "
            '(Excel calls it "CSV UTF-8"), or convert it: iconv -f cp1252 -t utf-8'
        ) from error


def _piped(path: Path) -> str:
    """The text of a pipe. Raises ValueError for no text, for too much, and if nobody writes to it."""
    parts, size, end = list[bytes](), 0, time.monotonic() + WAIT
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))  # which waits for no writer
    with os.fdopen(descriptor, "rb", buffering=0) as pipe:
        os.set_blocking(descriptor, True)
        while size <= LARGEST:
            if part := pipe.read(1 << 16):
                parts, size = [*parts, part], size + len(part)
            elif parts or time.monotonic() > end:
                break
            else:
                time.sleep(PAUSE)
    if not parts or size > LARGEST:
        what = f"more than {LARGEST:,} bytes" if parts else f"nothing in {WAIT} s"
        raise ValueError(
            f"got {what} from the pipe {path}; expected text, which can be read once; write it to a file"
        )
    try:
        return b"".join(parts).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"got bytes from the pipe {path} that are not UTF-8; expected text in UTF-8; convert it"
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
