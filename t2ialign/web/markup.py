"""Escaping for pages: no text from a file is taken for HTML."""

from __future__ import annotations

from html import escape

from markupsafe import Markup


def escaped(value: object) -> Markup:
    """The value as text of an element or of a quoted attribute; what is no UTF-8 becomes escapes.

    Every expression of a template goes through here, numbers of files too: a file may hold anything in their
    place. What a template has made stays as it is.
    """
    if isinstance(value, Markup):
        return value
    text = str(value).encode("utf-8", "backslashreplace").decode("utf-8")
    return Markup(escape(text, quote=True))
