"""What a page shows of files: no text is taken for HTML."""

from __future__ import annotations

from html import escape


def escaped(value: object) -> str:
    """The value as text of an element or of a quoted attribute; what is no UTF-8 becomes escapes.

    Every value on a page goes through here, numbers of files too: a file may hold anything in their place.
    """
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return escape(text, quote=True)
