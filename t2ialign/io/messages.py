"""Values from files, as messages show them: cut, on one line, and without control characters."""

from __future__ import annotations

import logging
import reprlib
from collections.abc import Iterable

VALUE, MESSAGE = 80, 1000
"""Characters of a value from a file, and of a whole message, that are shown at most."""
BLANKS = "\n\t\xa0\u2009\u202f\u3000"
"""Characters that Python calls unprintable, and that look like a blank or a new line."""
NAMES = 20
"""Columns that a message lists at most."""

_short = reprlib.Repr()
_short.maxlist = _short.maxdict = _short.maxtuple = 4
_short.maxlevel, _short.maxstring, _short.maxother = 3, VALUE, VALUE


def quoted(value: object, longest: int = VALUE) -> str:
    """A value as Python writes it, in at most `longest` characters: control characters become escapes."""
    text = repr(value[: longest + 1]) if isinstance(value, str | bytes) else _short.repr(value)
    return _cut(one_line(text), longest)


def listed(names: Iterable[object]) -> str:
    """Names of columns, each cut like a value, the first twenty of them."""
    shown = [_cut(one_line(str(name)[: 2 * VALUE]), VALUE) for name in names]
    more = [f"and {len(shown) - NAMES} more"] if len(shown) > NAMES else []
    return ", ".join([*shown[:NAMES], *more]) or "none"


def one_line(text: str, longest: int = MESSAGE) -> str:
    """A message on one line that a terminal shows as it is; of a longer one the middle is left out.

    Our messages say at the start what is wrong and at the end what to do, so both ends matter.
    """
    line = printable(" ".join(text.split()))
    if len(line) <= longest:
        return line
    end = (longest - 5) // 3
    return f"{line[: longest - 5 - end]} ... {line[-end:]}"


def printable(text: str) -> str:
    """The text with escapes in place of what a terminal would act on; line breaks, tabs and blanks stay."""
    return "".join(char if char.isprintable() or char in BLANKS else repr(char)[1:-1] for char in text)


def marked(value: object) -> str:
    """The value on one line of Markdown, in which nothing of it begins HTML or a new block."""
    text = printable(" ".join(str(value).split())).encode("utf-8", "backslashreplace").decode("utf-8")
    return text.replace("<", "&lt;")


class OneLine(logging.Formatter):
    """A formatter that puts every message through `one_line`."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as text."""
        return one_line(super().format(record))


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 3] + "..."
