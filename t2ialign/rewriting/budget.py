"""The token budget of a text encoder: the cost of a prompt, and cutting one down to clauses that fit."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from t2ialign.rewriting.quotes import quoted
from t2ialign.rewriting.survival import Lost, check

_SENTENCE = re.compile(
    r"(?<=[.!?])(?<!\bMr\.)(?<!\bMrs\.)(?<!\bDr\.)(?<!\bSt\.)(?<!\bNo\.)[\"'\u201d\u2019]?\s+(?![a-z\s])"
)
_CLAUSE = re.compile(r"(?<=[,;:])\s+|\s+(?=[-\u2013\u2014]\s)")


@dataclass(frozen=True)
class Shortened:
    """A text that was cut down: what is left, the pieces that went, in their order, and what they lost."""

    text: str
    dropped: tuple[str, ...]
    lost: tuple[Lost, ...]
    fits: bool
    """False where even the first clause is over the limit."""


def count(tokenizer: Any, text: str) -> int:
    """Tokens of a text with the begin and end marks that the tokenizer of a pipeline sets."""
    return len(tokenizer(text, verbose=False).input_ids)


def shorten(
    tokenizer: Any, text: str, limit: int | None = None, *, original: str | None = None, prefix: str = ""
) -> Shortened:
    """Drop sentences from the end, then clauses, until the text fits; quoted text is never cut in two.

    limit: in tokens, marks included; the tokenizer's own by default. What `original` (the text itself by
    default) asks to survive goes last, and only if nothing else is left to drop. prefix: what the text begins
    with, which stays whole. Raises ValueError without any limit.
    """
    size = _limit(tokenizer, limit)
    wanted = text if original is None else original
    before = check(wanted, text)
    pieces = _pieces(text, _SENTENCE, len(prefix))
    dropped: list[tuple[int, str]] = []

    def over() -> bool:
        return count(tokenizer, _joined(pieces)) > size

    def drop(keep: bool) -> None:
        """Drop from the end, never the first piece; with `keep` none whose loss the check would see."""
        for index in range(len(pieces) - 1, 0, -1):
            rest = pieces[:index] + pieces[index + 1 :]
            if over() and not (keep and len(check(wanted, _joined(rest))) > len(before)):
                dropped.append((pieces[index][0], pieces.pop(index)[1]))

    drop(keep=True)
    if over():
        pieces[:] = [
            (start + at, part)
            for start, piece in pieces
            for at, part in _pieces(piece, _CLAUSE, len(prefix) - start)
        ]
        drop(keep=True)
        drop(keep=False)
    if not dropped:
        return Shortened(text, (), (), not over())
    left = _joined(pieces)
    lost = tuple(loss for loss in check(wanted, left) if loss not in before)
    return Shortened(left, tuple(part.strip() for _, part in sorted(dropped)), lost, not over())


def _limit(tokenizer: Any, limit: int | None) -> int:
    size = int(tokenizer.model_max_length) if limit is None else limit
    if size > 1_000_000:  # what transformers sets where a tokenizer names no limit
        raise ValueError("got a tokenizer without a length limit; expected one; give the limit in tokens")
    return size


def _pieces(text: str, border: re.Pattern[str], whole: int) -> list[tuple[int, str]]:
    """(where it starts, the piece with its blanks) for every part between borders outside quoted text.

    The first `whole` letters, and the words up to the next border, stay together.
    """
    spans = [(quote.start, quote.end) for quote in quoted(text)]
    cuts = [
        match.end()
        for match in border.finditer(text)
        if match.end() < len(text)
        and not any(start < match.end() < end for start, end in spans)
        and (whole <= 0 or re.search(r"\w", text[whole : match.end()]))
    ]
    edges = [0, *cuts, len(text)]
    return [(start, text[start:end]) for start, end in pairwise(edges)]


def _joined(pieces: list[tuple[int, str]]) -> str:
    """The pieces as text that ends as a sentence where it was cut at a comma."""
    text = "".join(piece if piece[-1:].isspace() else piece + " " for _, piece in pieces).strip()
    return re.sub(r"[,;:\s\u2013\u2014-]+$", ".", text)
