"""Reading prompts without a parser: counted noun phrases, pairs of nouns and edits."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache

from rewards.text.contrast_words import (
    BOUNDARIES,
    CONVERSE,
    ENGLISH,
    MEDIA,
    NEGATORS,
    NOUNS_IN_ING,
    QUANTITIES,
)
from rewards.text.english import article, is_plural, plural, singular, value

Span = tuple[int, int]

_TOKEN = re.compile(r"\w+(?:['-]\w+)*|[^\w\s]")
_ARTICLE_BEFORE = re.compile(r"(?<!\w)(an?)\s+$", re.IGNORECASE)
_STYLE = re.compile(
    rf"(?:an?\s+|the\s+)?(?:[\w-]+\s+){{0,3}}?({'|'.join(MEDIA)})s?(?:\s+(?:style|work))?\s+of\b",
    re.IGNORECASE,
)
_BY_LENGTH = sorted(CONVERSE, key=len, reverse=True)
_LINK = re.compile(rf"(?<!\w)({'|'.join(_BY_LENGTH)})(?!\w)", re.IGNORECASE)
_NOUNS = {noun for _, nouns in ENGLISH.groups for noun in nouns}
ADJECTIVES = ({*ENGLISH.colours} | {word for family in ENGLISH.attributes for word in family}) - _NOUNS
"""Words that do not end a noun phrase; "orange" and "square" can."""


@dataclass(frozen=True)
class Token:
    """A word or mark of a text and where it lies."""

    text: str
    start: int
    end: int

    @property
    def word(self) -> str:
        """The text in lower case."""
        return self.text.lower()

    @property
    def span(self) -> Span:
        """(start, end)"""
        return self.start, self.end


@dataclass(frozen=True)
class Phrase:
    """A counted noun, "a small dog" or "three cats", from its number word to its last noun.

    `verb` is the word after it that agrees with it ("sits", "are"), when there is one.
    """

    number: Token
    head: Token
    verb: Token | None = None

    @property
    def count(self) -> int:
        """How many; 1 for "a", "an" and "one"."""
        number_named = value(self.number.text)
        assert number_named is not None, "a phrase starts with a number"
        return number_named


@dataclass(frozen=True)
class Scene:
    """A text that is two nouns and what links them, `prefix first link second`; `link` in lower case."""

    prefix: str
    first: str
    link: str
    second: str


def tokens(text: str) -> list[Token]:
    """The words and marks of a text, in order."""
    return [Token(match.group(), *match.span()) for match in _TOKEN.finditer(text)]


def rewrite(text: str, edits: Iterable[tuple[Span, str]]) -> str:
    """Replace spans; "a" or "an" before a replacement and the capital of the first word are kept right."""
    for (start, end), new in sorted(edits, reverse=True):
        if text[start:end][:1].isupper() and not text[:start].strip(" \"'("):
            new = new[:1].upper() + new[1:]
        before = _ARTICLE_BEFORE.search(text[:start])
        head = text[:start]
        if before and new:
            fitting = article(new)
            head = head[: before.start(1)] + (fitting.title() if before[1][0] == "A" else fitting)
            head += text[before.end(1) : start]
        text = head + new + text[end:]
    return " ".join(text.split())


def style_end(text: str) -> int:
    """Where the "a realistic photo of" at the start of a prompt ends; 0 without one."""
    match = _STYLE.match(text)
    return match.end() if match else 0


def style_noun(text: str) -> tuple[Span, str] | None:
    """The words that name the style before "of", without article, and their medium, or None."""
    match = _STYLE.match(text)
    if match is None:
        return None
    lead = re.match(r"(?:an?\s+|the\s+)?", text, re.IGNORECASE)
    assert lead is not None, "every part of the pattern may be empty"
    return (lead.end(), match.end() - len(" of")), MEDIA[match[1].lower()]


def ends_phrase(token: Token, following: Token | None) -> bool:
    """Whether a noun phrase cannot go on with this token."""
    word = token.word
    if not word[0].isalnum() or word in BOUNDARIES or value(word) is not None:
        return True
    return word in ("left", "right") and following is not None and following.word == "of"


def _run(items: list[Token]) -> list[Token]:
    """The tokens of the noun phrase that starts `items`, perhaps with the verb that follows it."""
    run: list[Token] = []
    for index, token in enumerate(items):
        following = items[index + 1] if index + 1 < len(items) else None
        plain = bool(run) and run[-1].word not in ADJECTIVES
        if token.text == "," and run and not plain:
            continue  # "a big, red dog"
        if ends_phrase(token, following):
            break
        if plain and token.word.endswith("ing") and token.word not in NOUNS_IN_ING:
            break
        if plain and token.word.endswith("ed") and (following is None or ends_phrase(following, None)):
            break
        run.append(token)
    return run


def _phrase(number: Token, items: list[Token]) -> Phrase | None:
    count, run = value(number.text), _run(items)
    while len(run) > 1 and run[-1].word.endswith("ly") and len(run[-1].word) > 4:
        run = run[:-1]
    if count == 1:
        nouns = [token for token in run if not is_plural(token.text)]
        cut = next((i for i, token in enumerate(run) if i and is_plural(token.text)), len(run))
        head = run[cut - 1] if run and run[0] in nouns else None
    else:
        many = [i for i, token in enumerate(run) if is_plural(token.text) or plural(token.text) == token.text]
        cut = many[-1] + 1 if many else len(run)
        head = run[many[-1]] if many else None
    if head is None or head.word in ADJECTIVES | QUANTITIES:
        return None
    after = next((t for t in items if t.start >= head.end), None)
    verb = run[cut] if cut < len(run) else after if after and after.word in _VERBS else None
    return Phrase(number, head, verb)


_VERBS = {"is": "are", "was": "were", "has": "have", "does": "do"}
_VERBS |= {many: one for one, many in _VERBS.items()}


def agree(verb: Token) -> str:
    """The verb of one thing for several, and the other way round: sits <-> sit, is <-> are."""
    if verb.word in _VERBS:
        return _VERBS[verb.word]
    return singular(verb.text) if is_plural(verb.text) else plural(verb.text)


@lru_cache(maxsize=4096)
def phrases(text: str) -> tuple[Phrase, ...]:
    """Every counted noun of a text; numerals above 20 are years or prices and not counted."""
    items, start = tokens(text), style_end(text)
    pairs = []
    for index, token in enumerate(items):
        count = value(token.text)
        if count is None or not 1 <= count <= 20 or token.start < start:
            continue
        if phrase := _phrase(token, items[index + 1 :]):
            before = items[index - 1].word if index else ""
            pairs.append((phrase, token.start <= start + 1 or before in _BEFORE_SUBJECT))
    return tuple(_with_verbs(pairs))


_BEFORE_SUBJECT = frozenset((",", ".", ":", "and", "while", "where", "as", "of", "when", "but"))


def _with_verbs(pairs: list[tuple[Phrase, bool]]) -> list[Phrase]:
    """Phrases of which some can be subjects: a verb after another noun is the last subject's."""
    done: list[Phrase] = []
    subject: int | None = None
    for phrase, leads in pairs:
        if leads:
            subject = None if phrase.verb else len(done)
        elif phrase.verb is not None:
            if subject is not None:
                done[subject] = replace(done[subject], verb=phrase.verb)
            phrase, subject = replace(phrase, verb=None), None
        done.append(phrase)
    return done


@lru_cache(maxsize=4096)
def scene(text: str) -> Scene | None:
    """The two linked nouns that a text consists of, or None when it is anything else."""
    start, body = style_end(text), text.rstrip(" .!")
    links = list(_LINK.finditer(body, start))
    if len(links) != 1:
        return None
    link = links[0]
    first, second = body[start : link.start()].strip(), body[link.end() :].strip()
    heads = [side.split(" ")[0].lower() for side in (first, second)]
    if not all(value(head) is not None or head in (*NEGATORS, "the") for head in heads):
        return None
    return Scene(body[:start].strip(), first, link[1].lower(), second)
