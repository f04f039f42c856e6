"""Finds the prompt of an image: one for all, a table of files, a text beside it, or its name."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from t2ialign.data.files.tables import TABLES, first_of
from t2ialign.data.files.walk import composed
from t2ialign.data.prompts import PROMPT_COLUMNS, check_ending, prompt_or_none
from t2ialign.data.sources import read_rows
from t2ialign.io import naming
from t2ialign.io.messages import listed, quoted

FILE_COLUMNS = ("file_name", "filename", "file", "image_path", "file_path", "path", "image", "img", "key")
"""Names that a column of image files goes by, in order of preference, letter case aside."""


@dataclass(frozen=True)
class Prompts:
    """A rule for prompts; the first part that is set decides, then the text that lies beside an image."""

    table: Mapping[str, Sequence[str]] | None = None
    """File as written in the table -> its prompts, in order."""
    literal: str | None = None
    names: bool = False

    @property
    def given(self) -> bool:
        """Whether the user named a source of prompts, other than the text beside each image."""
        return self.fixed or self.table is not None

    @property
    def fixed(self) -> bool:
        """Whether no text has to be read."""
        return self.literal is not None or self.names

    def of(self, file: str, beside: str | None = None) -> list[str | None]:
        """The prompts of one image by its name in the source (with "/"); [None] if there is none."""
        if self.table is not None:
            return [text or None for text in lookup(self.table, file) or [None]]
        if self.literal is not None:
            return [self.literal]
        return [from_name(file)] if self.names else [beside or None]


def parse_prompts(text: str | None, *, names: bool, text_column: str | None = None) -> Prompts:
    """Prompts as users name them: a table (.jsonl, .json, .csv, .tsv, .parquet) with file and prompt, or one.

    Raises ValueError for a table that is missing, malformed, empty or without those columns, for a plain list
    of prompts, and for both a text and `names`.
    """
    if text is None:
        return Prompts(names=names)
    if names:
        raise ValueError(
            f"got {naming.given('prompts', quoted(text))} and {naming.name('prompts_from_names')}; expected "
            "one of them; drop the other"
        )
    path = Path(text)
    check_ending(path)
    if path.suffix.lower() in TABLES:
        return Prompts(table=read_prompt_table(path, text_column))
    if path.suffix.lower() == ".txt":
        raise ValueError(
            f"got {naming.given('prompts', text)}, which names no images; expected a table "
            f"({', '.join(TABLES)}) with a "
            'file name and a prompt in each row; write {"file_name": ..., "prompt": ...} lines'
        )
    if not text.strip():
        raise ValueError(
            f"got an empty text as {naming.name('prompts')}; expected a prompt, or a table of files and "
            "prompts"
        )
    return Prompts(literal=text)


def read_prompt_table(path: Path, text_column: str | None = None) -> dict[str, list[str]]:
    """File, as written but with "/" -> its prompts in order. Raises ValueError like `parse_prompts`."""
    if not path.is_file():
        raise ValueError(f"got prompts {path}, which is no file; expected a table; check the path")
    prompts: dict[str, list[str]] = {}
    rows, _ = read_rows(
        str(path),
        select=lambda where, names: _columns(where, names, text_column),
        split="train",
        streaming=True,
    )
    for where, row in rows:
        file, prompt = (row[column] for column in _columns(where, list(row), text_column))
        if not isinstance(file, str) or not file.strip():
            raise ValueError(f"{where}: got {quoted(file)} for a file's name; expected text; correct the row")
        prompts.setdefault(normal(file), []).append(prompt_or_none(where, prompt) or "")
    if not prompts:
        raise ValueError(f"got no rows in {path}; expected a file and a prompt in each; check the table")
    return prompts


def lookup(table: Mapping[str, Any], file: str) -> Any:
    """The entry of a file by its whole name, or by that without its ending; None if absent.

    The letter case of the ending and the Unicode form do not matter.
    """
    head, tail = os.path.splitext(composed(file))
    names = dict.fromkeys((composed(file), head + tail.lower(), head + tail.upper(), head))
    return next((table[name] for name in names if name in table), None)


def from_name(file: str) -> str:
    """ "sub/a_red-circle_0003.png" -> "a red circle": no ending, no last numbers, blanks for _ and -."""
    stem = PurePosixPath(file).stem
    words = re.sub(r"[_\-\s]+", " ", stem).strip()
    return re.sub(r"(\s+\(?\d+\)?)+$", "", words) or words


def normal(file: str) -> str:
    """A path as tables write it -> "/" between its parts, no leading "./", accents in one Unicode form."""
    return composed(file.replace("\\", "/").removeprefix("./"))


def _columns(where: str, names: list[str], text_column: str | None) -> list[str]:
    file, prompt = (
        first_of(names, FILE_COLUMNS),
        first_of(names, [text_column] if text_column else PROMPT_COLUMNS),
    )
    if file is None or prompt is None:
        raise ValueError(
            f"{where}: got columns {listed(names)}; expected a file (one of {', '.join(FILE_COLUMNS)}) "
            f"and a prompt ({text_column or ', '.join(PROMPT_COLUMNS)}); rename the columns"
        )
    return [file, prompt]
