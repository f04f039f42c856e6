"""The manifest of rendered images, which sampling writes and judging reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from t2ialign.io import jsonl
from t2ialign.io.inside import inside
from t2ialign.io.messages import listed, quoted

NAME = "manifest.jsonl"


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
    rows = jsonl.read(file)
    if not rows:
        raise ValueError(f"got no rows in {file}; expected one JSON object a line; sample some images first")
    images = [_rendered(file, number, row) for number, row in enumerate(rows, 1)]
    for image in images if source.is_dir() else ():
        inside(source, image.file)
    return images


def _rendered(file: Path, number: int, row: dict[str, Any]) -> Rendered:
    settings = dict(row)
    name, prompt, seed = (settings.pop(key, None) for key in ("file", "prompt", "seed"))
    if not isinstance(name, str) or not isinstance(prompt, str) or not prompt.strip():
        raise ValueError(
            f"got {listed(row)} in {file} line {number}; expected file and prompt as text; add them"
        )
    if not (seed is None or isinstance(seed, int)):
        raise ValueError(
            f"got seed {quoted(seed)} in {file} line {number}; expected a whole number; correct the line"
        )
    return Rendered(name, file.parent / name, prompt, seed, settings)
