"""JSONL journals that survive a kill, and the manifest of rendered images that every verb reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2ialign.data.messages import listed, quoted
from t2ialign.evaluation.markup import inside

NAME = "manifest.jsonl"
ESCAPED = "backslashreplace"
"""How bytes of file names that are no text are written: as escapes, which JSON reads back."""


@dataclass(frozen=True)
class Rendered:
    """One image of a manifest: its name there, where it lies, what made it; `settings` has the other keys."""

    file: str
    path: Path
    prompt: str
    seed: int | None
    settings: Mapping[str, Any]


def read(source: Path) -> list[Rendered]:
    """The rows of a manifest file, or of the `manifest.jsonl` in a folder; image paths relative to it.

    A folder, which may come from others, names images within it alone; a file is a table of the user's, and
    may name any. Raises ValueError for a missing or empty manifest, for a row without `file` or `prompt`, and
    for an image outside a folder.
    """
    file = source / NAME if source.is_dir() else source
    if not file.is_file():
        raise ValueError(f"got no {file}; expected a folder with {NAME}; write one with t2ialign sample")
    rows = journal(file)
    if not rows:
        raise ValueError(f"got no rows in {file}; expected one JSON object a line; sample some images first")
    images = [_rendered(file, number, row) for number, row in enumerate(rows, 1)]
    for image in images if source.is_dir() else ():
        inside(source, image.file)
    return images


def journal(file: Path) -> list[dict[str, Any]]:
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
            raise ValueError(f"got {shown!r} in {file} line {number}; expected a JSON object; mend the line")
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


def read_json(file: Path) -> dict[str, Any]:
    """A JSON object that `write_json` wrote. Raises ValueError, naming the file, for anything else."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise ValueError(
            f"got {file}, which is damaged (it is no JSON object); expected what was written there; restore "
            "it from a copy, or choose another output"
        )
    return value


def write_json(file: Path, value: object) -> None:
    """Write indented JSON at once; NaN is refused, since it is no JSON."""
    write_text(file, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(file: Path, text: str) -> None:
    """Write UTF-8 text at once: a reader never sees half of it."""
    scratch = file.with_name(f".{file.name}.part")
    scratch.write_text(text, encoding="utf-8", errors=ESCAPED)
    scratch.replace(file)


def _rendered(file: Path, number: int, row: dict[str, Any]) -> Rendered:
    settings = dict(row)
    name, prompt, seed = (settings.pop(key, None) for key in ("file", "prompt", "seed"))
    if not isinstance(name, str) or not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(
            f"got {listed(row)} in {file} line {number}; expected file and prompt as text; add them"
        )
    if not (seed is None or isinstance(seed, int)):
        raise ValueError(
            f"got seed {quoted(seed)} in {file} line {number}; expected a whole number; mend the line"
        )
    return Rendered(name, file.parent / name, prompt, seed, settings)
