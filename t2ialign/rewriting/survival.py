"""What of the user's prompt must survive a rewrite: quoted text, numbers, negations.

The check reads words, not meaning. It is tolerant, because a false alarm throws a good rewrite away: a number
may be counted out ("one ... the other", "both"), and an absence may be stated in other words ("silent").
What it lets pass: a negation of several things of which the rewrite keeps one, a number that happens to stand
beside a new word, and everything that is neither quoted, nor counted, nor negated.
"""

from __future__ import annotations

from dataclasses import dataclass

from t2ialign.rewriting.negations import lost_negations
from t2ialign.rewriting.numbers import lost_numbers
from t2ialign.rewriting.quotes import letters, lost_quotes, quoted, without_quotes

KINDS = ("quote", "number", "negation")


@dataclass(frozen=True)
class Lost:
    """Something of the prompt that the rewrite does not say: its kind, and the words of the prompt."""

    what: str
    evidence: str


def check(original: str, rewrite: str) -> list[Lost]:
    """What the rewrite lost, in the order of `KINDS`; [] when everything survives."""
    quotes = {letters(quote.text) for quote in quoted(original)}
    plain, given = without_quotes(original), without_quotes(rewrite, quotes)
    lost_by_kind = zip(
        KINDS,
        (lost_quotes(original, rewrite), lost_numbers(plain, given), lost_negations(plain, given)),
        strict=True,
    )
    return [Lost(what, evidence) for what, lost in lost_by_kind for evidence in lost]
