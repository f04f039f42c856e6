"""Small files that are written at once: a reader sees the old one or the new one, never half."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ESCAPED = "backslashreplace"
"""The form of bytes in file names that are no text: escapes, which JSON reads back."""


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
