"""Hashes of the files of a cache or a checkpoint, by which damage is noticed: SHA-256, as hex digits."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

HASHES = "hashes.jsonl"
"""The hashes of the files of an unfinished folder, one a line, each written before its file is there."""
KEY = "sha256"


def digest(file: Path) -> str:
    """The hash of a file's content."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, KEY).hexdigest()


def sealed(value: Mapping[str, Any], name: str, hashes: Mapping[str, str]) -> dict[str, Any]:
    """A JSON object that carries `hashes` of files, and its own under the `name` it will be stored by."""
    return {**value, KEY: {**hashes, name: _digest(value, hashes)}}


def is_sealed(value: Mapping[str, Any], name: str) -> bool:
    """Whether an object of `sealed` is as it was written; one without hashes, of an older version, is too."""
    if KEY not in value:
        return True
    hashes = value[KEY]
    if not isinstance(hashes, dict):
        return False
    rest = {key: one for key, one in value.items() if key != KEY}
    others = {key: one for key, one in hashes.items() if key != name}
    return bool(hashes.get(name) == _digest(rest, others))


def fault(file: Path, expected: str | None) -> str | None:
    """The damage of a file, None without any; a file without a hash must hold tensors that can be read."""
    if not file.is_file():
        return f"{file.name} is missing"
    if expected is not None:
        return None if digest(file) == expected else f"{file.name} has another content than was written"
    if file.suffix != ".safetensors":
        return None
    try:
        with safe_open(str(file), framework="numpy"):
            return None
    except SafetensorError as error:
        return f"{file.name} cannot be read ({error})"


def note(folder: Path, name: str, value: str) -> None:
    """Note the hash of a file that is about to be written."""
    with (folder / HASHES).open("a", encoding="utf-8") as stream:
        stream.write(json.dumps({"file": name, KEY: value}) + "\n")
        stream.flush()
        os.fsync(stream.fileno())


def noted(folder: Path) -> dict[str, str] | None:
    """File name -> hash, without lines that a kill left torn; None where no hashes were kept."""
    file = folder / HASHES
    if not file.is_file():
        return None
    hashes = {}
    for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
            hashes[str(row["file"])] = str(row[KEY])
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return hashes


def _digest(value: Mapping[str, Any], hashes: Mapping[str, str]) -> str:
    text = json.dumps([value, hashes], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()
