"""Quoted text of a prompt, in any style of quotation marks."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

# Single marks quote at most 500 letters, since each one that is never closed looks so far for its end.
# A straight mark after a digit is inches; a straight single one inside a word is an apostrophe.
_STYLES = (
    r'(?<!\d)"([^"\n]+)"',
    "[\u201c\u201e\u201d]([^\u201c\u201d\n]+)[\u201d\u201c]",
    "\u00ab([^\u00ab\u00bb\n]+)\u00bb|\u00bb([^\u00ab\u00bb\n]+)\u00ab",
    "\u300c([^\u300c\u300d\n]+)\u300d|\u300e([^\u300e\u300f\n]+)\u300f|\u300a([^\u300a\u300b\n]+)\u300b",
    r"(?<![\w'])'(?![\s']|\d0s|n'|(?:em|tis|twas|til)\b)([^\n]{0,500}?[^\s'])'(?!\w)",
    "(?<!\\w)[\u2018\u201a](?!\\s|\\d0s|n\u2019)([^\u2018\n]{0,500}?[^\\s\u2018\u2019])[\u2019\u2018](?!\\w)",
    r"`([^`\n]+)`",
)
_QUOTED = re.compile("|".join(_STYLES))
_STRAIGHT = str.maketrans(
    {**dict.fromkeys("\u2018\u2019\u201a\u00b4`", "'"), **dict.fromkeys("\u201c\u201d\u201e", '"')}
)


@dataclass(frozen=True)
class Quoted:
    """A quoted text without its marks, and where it lies with them."""

    text: str
    start: int
    end: int


def quoted(text: str) -> list[Quoted]:
    """Every quoted text, in order; a mark that is never closed quotes nothing."""
    quotes = []
    for match in _QUOTED.finditer(text):
        inside = next(group for group in match.groups() if group is not None)
        if inside.strip():
            quotes.append(Quoted(inside, *match.span()))
    return quotes


def letters(text: str) -> str:
    """What would be drawn: one spelling of letters, marks and blanks; letter case is kept.

    A comma or full stop at the end belongs to the sentence around the quotation, as American printers set it.
    """
    plain = unicodedata.normalize("NFC", text).translate(_STRAIGHT)
    return " ".join(plain.split()).rstrip(",.").rstrip()


def lost_quotes(original: str, rewrite: str) -> list[str]:
    """Quoted texts of the original that are not verbatim, quoted or not, in the rewrite."""
    given = letters(rewrite) + " "
    return [
        quote.text
        for quote in quoted(original)
        if not re.search(rf"(?<!\w){re.escape(letters(quote.text))}(?!\w)", given)
    ]


def without_quotes(text: str, only: set[str] | None = None) -> str:
    """The text with each quotation, or those whose `letters` are in `only`, turned into one mark."""
    for quote in reversed(quoted(text)):
        if only is None or letters(quote.text) in only:
            text = text[: quote.start] + ' " ' + text[quote.end :]
    return text
