"""Prompt lists: a file, one line each or a named column, or the prompt itself typed in place."""

import logging
from pathlib import Path

from t2ialign.data.tables import SUFFIXES, first_of, read_lines, read_table

PROMPT_COLUMNS = ("prompt", "caption", "text")
"""Names a prompt goes by, in order of preference, letter case aside."""


log = logging.getLogger(__name__)


def read_prompts(source: str | Path) -> list[str]:
    """Prompts of a .txt (one a line), .jsonl, .json, .csv or .tsv file (column prompt, caption or text).

    Anything else is taken for one literal prompt. UTF-8, a byte-order mark is dropped, blank lines are
    skipped, order and repeats are kept; a negative_prompt is not read, with a warning. Raises ValueError for
    a missing or malformed file, or no prompts.
    """
    path = Path(source)
    if not isinstance(source, Path) and not _names_a_file(source):
        if not source.strip():
            raise ValueError("got an empty prompt; expected a prompt or a file of prompts")
        return [source]
    if path.suffix.lower() in SUFFIXES:
        rows = list(read_table(path))
        prompts = [_prompt(where, row) for where, row in rows]
        if negative := sum(bool(row.get("negative_prompt")) for _, row in rows):
            log.warning("%s: negative_prompt of %d rows is not used; only the prompts are", path, negative)
    else:
        prompts = [line for _, line in read_lines(path)]
    prompts = [prompt.strip() for prompt in prompts if prompt.strip()]
    if not prompts:
        raise ValueError(f"got no prompts in {path}; expected at least one; write one a line")
    return prompts


def _names_a_file(text: str) -> bool:
    """Whether the text is a path rather than a prompt: it exists, or it ends as our files do."""
    try:
        if Path(text).is_file():
            return True
    except OSError:  # a prompt longer than any file name
        return False
    return "\n" not in text and Path(text).suffix.lower() in (".txt", *SUFFIXES)


def _prompt(where: str, row: dict[str, object]) -> str:
    column = first_of(row, PROMPT_COLUMNS)
    if column is None:
        raise ValueError(
            f"{where}: got columns {', '.join(map(str, row))}; expected one of {', '.join(PROMPT_COLUMNS)}; "
            "rename the column"
        )
    prompt = row[column]
    if not isinstance(prompt, str):
        raise ValueError(f"{where}: got {prompt!r} in column {column}; expected text")
    return prompt
