"""Prompt lists: a file, one line each or a named column, or the prompt itself typed in place."""

import logging
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from t2ialign.data.files.lines import FOREIGN
from t2ialign.data.files.tables import TABLES, first_of, read_table, read_text
from t2ialign.data.skipped import Fault, Skipped
from t2ialign.io.messages import listed, quoted

PROMPT_COLUMNS = ("prompt", "caption", "text", "prompt_en")
"""The names of a column of prompts, in order of preference; letter case does not matter."""
NOTHING = ("nan", "none", "null")
"""Values that programs write where a prompt is missing."""
HALVES = re.compile("[\ud800-\udfff]")
"""Halves of characters, which JSON may name and no encoder takes."""
NEGATIVE = "negative_prompt"
EMPTY, NO_TEXT = "without a prompt", "with a prompt that is no text"
"""Kinds of `Fault`."""

log = logging.getLogger(__name__)


def read_prompts(source: str | Path) -> list[str]:
    """Prompts of a .txt file, one a line, or of a .jsonl, .json, .csv, .tsv or .parquet table.

    Their column is one of `PROMPT_COLUMNS`. Anything else is taken for one literal prompt. Blank
    lines are skipped; rows without a prompt are left out and a warning counts them; order and repeats are
    kept; a negative_prompt is not read, with a warning.
    Raises ValueError for a missing or malformed file, a prompt that is no text, or no prompts.
    """
    path = Path(source)
    if not isinstance(source, Path) and not _names_a_file(source):
        if not source.strip():
            raise ValueError("got an empty prompt; expected a prompt or a file of prompts")
        return [source]
    skipped, negative = Skipped(str(path)), 0
    prompts = []
    for where, row in _rows(path):
        skipped.rows += 1
        negative += bool(row.get(NEGATIVE))
        try:
            prompts.append(prompt_text(where, row[_column(where, list(row))]).strip())
        except Fault as fault:
            if fault.kind != EMPTY:
                raise
            skipped.add(fault, where)
    if not prompts:
        why = f" ({skipped.summary()})" if skipped.count else ""
        raise ValueError(f"got no prompts in {path}{why}; expected at least one; write one a line")
    skipped.tell()
    if negative:
        log.warning("%s: negative_prompt of %d rows is not used; only the prompts are", path, negative)
    if path.suffix.lower() not in TABLES:
        _warn_of_lines(path, prompts)
    return prompts


def place_of(source: str | Path, prompts: Collection[str]) -> str | None:
    """Where a file names the first of some prompts, such as "prompts.txt line 7"; None if it is no such file.

    Raises ValueError like `read_prompts`.
    """
    path = Path(source)
    if not _names_a_file(str(source)) or not path.is_file() or path.suffix.lower() not in (".txt", *TABLES):
        return None
    for where, row in read_table(path):
        text = row.get(first_of(row, PROMPT_COLUMNS) or "")
        if isinstance(text, str) and text.strip() in prompts:
            return where
    return None


def prompt_text(where: str, value: Any) -> str:
    """What a cell holds, if it is a prompt: the one rule of every verb.

    Raises Fault for null, NaN, a text that shows nothing or is one of `NOTHING`, and for what is no text.
    """
    text = prompt_or_none(where, value)
    if text is None:
        raise Fault(
            EMPTY,
            f"{where}: got prompt {quoted(value)}, which is empty; expected text; fill it in or drop the row",
        )
    return text


def prompt_or_none(where: str, value: Any) -> str | None:
    """The same, with None where there is no prompt. Raises Fault for what is no text."""
    if value is None or (isinstance(value, float) and value != value):
        return None
    if not isinstance(value, str) or HALVES.search(value):
        raise Fault(
            NO_TEXT, f"{where}: got prompt {quoted(value)}; expected text; correct it or drop the row"
        )
    shows = any(char.isprintable() and not char.isspace() for char in value)
    return value if shows and value.strip().lower() not in NOTHING else None


def check_ending(path: Path) -> None:
    """Raises ValueError for a file that is known to be no text and no table, such as .xlsx or .csv.gz."""
    if advice := FOREIGN.get(path.suffix.lower()):
        raise ValueError(f"got {path}; expected text or a table ({', '.join(TABLES)}); {advice}")


def _rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a table, or of lines, whatever else the file's name ends in."""
    check_ending(path)
    if path.suffix.lower() in TABLES:
        if not path.is_file():
            raise ValueError(f"got {path}, which is no file; expected a file of prompts; check the path")
        return read_table(path, _select)
    return read_text(path)


def _warn_of_lines(path: Path, prompts: list[str]) -> None:
    """A text file has neither comments nor columns; where it looks so, that is said."""
    if comments := sum(prompt.startswith("# ") for prompt in prompts):
        log.warning("%s: what begins with # is a prompt like the others (%d lines)", path, comments)
    if all("\t" in prompt for prompt in prompts):
        log.warning(
            "%s: there is a tab in every line; name a table .tsv, to read its column of prompts", path
        )


def _select(where: str, columns: list[str]) -> list[str]:
    return [_column(where, columns), *([NEGATIVE] if NEGATIVE in columns else [])]


def _names_a_file(text: str) -> bool:
    """Whether the text is a path rather than a prompt: it exists, or it ends as files do."""
    try:
        if Path(text).is_file() or Path(text).is_fifo():
            return True
    except OSError:  # a prompt longer than any file name
        return False
    return "\n" not in text and Path(text).suffix.lower() in (".txt", *TABLES, *FOREIGN)


def _column(where: str, columns: list[str]) -> str:
    column = first_of(columns, PROMPT_COLUMNS)
    if column is None:
        raise ValueError(
            f"{where}: got columns {listed(columns)}; expected one of {', '.join(PROMPT_COLUMNS)}; rename "
            "the column, or name the columns in the first line of a table"
        )
    return column
