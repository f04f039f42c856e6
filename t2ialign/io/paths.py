"""A leading ~ is the home folder, also where no shell expands it: in YAML, and behind an = sign."""

from __future__ import annotations

import os
import re
from os.path import expanduser
from pathlib import Path
from typing import Any

BEGINNING = r"~[\w.-]*(?=[/\\])"
IN_TEXT = re.compile(rf"^{BEGINNING}")
IN_A_WORD = re.compile(rf"(^|^-\w|[=,])({BEGINNING})")
"""The beginning of a path in a word of a command line: ~/x, -o~/x, --output=~/x, key=~/x, ~/x,~/y."""


def expand(value: Any) -> Any:
    """Text or a path that begins with ~/ or ~user/, in full; also within lists and mappings; the rest as is.

    A user whom the system does not know is left as written.
    """
    if isinstance(value, str):
        return IN_TEXT.sub(lambda match: expanduser(match[0]), value)
    if isinstance(value, Path):
        return Path(expand(str(value)))
    if isinstance(value, list | tuple):
        return type(value)(expand(item) for item in value)
    if isinstance(value, dict):
        return {key: expand(item) for key, item in value.items()}
    return value


def expand_word(word: str) -> str:
    """A word of a command line with every path in it in full."""
    return IN_A_WORD.sub(lambda match: match[1] + expanduser(match[2]), word)


def check_place(place: Path, what: str) -> None:
    """Raises ValueError, naming `what`, if no file or folder can be written at `place`."""
    there = next(parent for parent in [place, *place.absolute().parents] if parent.exists())
    if there != place and not there.is_dir():
        raise ValueError(
            f"got {what} {place}, but {there} is a file; expected a folder; choose another place"
        )
    if not os.access(there, os.W_OK):
        raise ValueError(
            f"got {what} {place}, but {there} is not writable; expected a writable place; choose another"
        )


def path(text: str) -> Path:
    """The argparse type of a path, for the scripts; `cli.Parser` expands every word it is given."""
    return Path(expand(text))
