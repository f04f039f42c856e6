"""JSON lines that survive a kill."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from t2ialign.io.atomic import ESCAPED


def read(file: Path) -> list[dict[str, Any]]:
    """The rows of a JSONL file, [] if it is absent. A torn last line, left by a kill, is not a row.

    Raises ValueError, naming the line, for any other line that is no JSON object.
    """
    rows: list[dict[str, Any]] = []
    lines = file.read_bytes().split(b"\n") if file.is_file() else []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"))
        except (ValueError, RecursionError):
            if number == len(lines):  # no newline after it: the writer was killed
                break
            row = None
        if not isinstance(row, dict):
            shown = line[:60].decode("utf-8", "replace")
            raise ValueError(
                f"got {shown!r} in {file} line {number}; expected a JSON object; correct the line"
            )
        rows.append(row)
    return rows


def append(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows at the end and push them to disk before returning."""
    with file.open("a", encoding="utf-8", errors=ESCAPED) as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        stream.flush()
        os.fsync(stream.fileno())


def rewrite(file: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace the whole journal at once: a reader sees the old one or the new one, never half."""
    scratch = file.with_name(f".{file.name}.part")
    scratch.unlink(missing_ok=True)
    try:
        append(scratch, rows)
        scratch.replace(file)
    finally:  # a full disk gets back what was written
        scratch.unlink(missing_ok=True)
