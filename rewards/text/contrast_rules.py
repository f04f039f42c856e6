"""Seven ways to change one thing in a prompt so that its image would be wrong for the changed prompt."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise

from rewards.text.contrast_text import (
    Phrase,
    Scene,
    Span,
    Token,
    agree,
    ends_phrase,
    phrases,
    rewrite,
    scene,
    style_end,
    style_noun,
    tokens,
)
from rewards.text.contrast_words import MEDIA, NEGATORS, Family, Words
from rewards.text.english import NUMBERS, article, is_plural, plural, singular

Edit = tuple[Span, str]


def other_numbers(count: int) -> list[int]:
    """The numbers that TIA2 sets against `count`: both neighbours, and one beyond each."""
    return {1: [2, 3], 2: [1, 3, 4]}.get(count, [count - 2, count - 1, count + 1, count + 2])


def number(prompt: str, words: Words) -> list[str]:
    """Another number of one of the counted things; "a" counts for the first noun and for known objects."""
    variants = []
    for index, phrase in enumerate(phrases(prompt)):
        if phrase.number.word in ("a", "an") and index and _group(phrase.head.text, words) is None:
            continue  # "during a storm"
        targets = [n for n in other_numbers(phrase.count) if n <= words.most]
        variants += [_recount(prompt, phrase, n) for n in targets]
    return variants


def _recount(prompt: str, phrase: Phrase, count: int) -> str:
    """The prompt with another number of one thing, its noun and verb agreeing."""
    noun = singular(phrase.head.text)
    edits = [(phrase.head.span, noun if count == 1 else plural(noun))]
    between = prompt[phrase.number.end : phrase.head.start].strip() or noun
    if phrase.number.text.isdecimal():
        edits.append((phrase.number.span, str(count)))
    else:
        word = article(between) if count == 1 else NUMBERS[count]
        edits.append((phrase.number.span, word))
    if phrase.verb is not None and (count == 1) != (phrase.count == 1):
        edits.append((phrase.verb.span, agree(phrase.verb)))
    return rewrite(prompt, edits)


def colour(prompt: str, words: Words) -> list[str]:
    """Two colours exchanged, or one replaced."""
    places = []
    for token, following in _pairs(prompt):
        noun = following is None or ends_phrase(following, None)
        if token.word in words.colours and not (noun and _group(token.text, words)):  # "an orange"
            places.append(token)
    edits = _exchanged(places) + _replaced(
        [(token.span, token.word) for token in places], [words.colours], words
    )
    return [rewrite(prompt, edit) for edit in edits]


def attribute(prompt: str, words: Words) -> list[str]:
    """Two attributes of one family exchanged (small and large), or one turned into its opposite."""
    places = [
        token
        for token, following in _pairs(prompt)
        if _family(token.word, words.attributes)
        and (not _is_noun(token, words) or not (following is None or ends_phrase(following, None)))
    ]
    same = [
        edit
        for edit in _exchanged(places)
        if len({_family(new, words.attributes) for _, new in edit}) == 1
        or _opposites([n for _, n in edit], words)
    ]
    edits = same + _replaced([(token.span, token.word) for token in places], words.attributes, words)
    return [rewrite(prompt, [_of_a_person(prompt, e, words) for e in edit]) for edit in edits]


def _opposites(pair: list[str], words: Words) -> bool:
    return any(set(pair) <= set(family) for family in words.attributes)


def _of_a_person(prompt: str, edit: Edit, words: Words) -> Edit:
    """An old man becomes a young one, not a new one."""
    span, new = edit
    after = tokens(prompt[span[1] :])[:3]
    living = any(_group(token.text, words) in ("person", "animal") for token in after)
    return (span, "young") if new == "new" and living else edit


def obj(prompt: str, words: Words) -> list[str]:
    """Two known objects exchanged, each in the number of its place, or one made another of its kind."""
    known = _objects(prompt, words)
    places = [(span, noun) for span, noun, absent in known if not absent]
    denied = {singular(noun).lower() for _, noun, absent in known if absent}
    edits: list[list[Edit]] = []
    for (one, first), (two, second) in pairwise(places):
        if singular(first).lower() != singular(second).lower():
            edits.append([(one, _as(second, first)), (two, _as(first, second))])
    families = [nouns for _, nouns in words.groups]
    for span, noun in places:
        for edit in _replaced([(span, singular(noun).lower())], families, words):
            edits += [[(span, _as(new, noun))] for _, new in edit if new not in denied]
    for span, noun in ((span, noun) for span, noun, absent in known if absent):
        edits += [[(span, _as(other, noun)), (there, _as(noun, other))] for there, other in places]
    return [rewrite(prompt, edit) for edit in edits]


def relation(prompt: str, words: Words) -> list[str]:
    """Another relation of the same kind: left of, right of, above; in front of, behind; larger, smaller."""
    places = []
    for match in _pattern(tuple(phrase for family in words.relations for phrase in family)).finditer(prompt):
        places.append((match.span(), match.group().lower()))
    return [rewrite(prompt, edit) for edit in _replaced(places, words.relations, words)]


def negation(prompt: str, words: Words) -> list[str]:
    """A denial turned into an affirmation, or a denial of one of two nouns."""
    variants = []
    for pattern, new in _AFFIRM:
        if pattern.search(prompt):
            variants.append(_with_article(pattern.sub(new, prompt, count=1)))
    if variants:
        return variants
    parts = scene(prompt)
    if parts is not None and parts.link not in ("with", "without"):
        variants += _one_denied(prompt, parts)
    for pattern, new in _DENY:
        if pattern.search(prompt):
            variants.append(pattern.sub(new, prompt, count=1))
    return variants


def _one_denied(prompt: str, parts: Scene) -> list[str]:
    """ "A and no B", "B and no A" of two nouns that nothing follows."""
    sides = (parts.first, parts.second)
    heads = [next((p for p in phrases(side) if p.head.end == len(side)), None) for side in sides]
    variants = []
    for one, two in ((0, 1), (1, 0)):
        stated, dropped, other, head = sides[one], sides[two], heads[one], heads[two]
        if head is None or other is None:
            return []
        clear = head.head.word != other.head.word  # else the colour says which of the two is absent
        absent = head.head.text if clear else dropped[head.number.end :].strip()
        if absent == stated[other.number.end :].strip():
            return []
        text = " ".join(f"{parts.prefix} {stated} and no {absent}".split())
        text = text[0].upper() + text[1:] if prompt[0].isupper() else text
        variants.append(text + prompt[len(prompt.rstrip(" .!")) :].strip())
    return variants


_AFFIRM = (
    (re.compile(r"\b(and|but) (?:no|without) (?=\w)"), r"\1 @ "),
    (re.compile(r"\bwith no (?=\w)|\bwithout (?:any )?(?!an? |the )(?=\w)"), "with @ "),
    (re.compile(r"\bwithout (?=(?:an?|the) )"), "with "),
    (re.compile(r"\b(?:is|are) not wearing\b|\bnot wearing\b"), "wearing"),
    (re.compile(r"\b(is|are|was|were)(?: not|n't)\b"), r"\1"),
)
"""Denials and what affirms them; @ stands for an article where the noun takes one."""
_DENY = (
    (re.compile(r"\bwith (?=(?:an?|the) \w)"), "without "),
    (re.compile(r"(?<!not )\bwearing\b"), "not wearing"),
    (re.compile(r"\b(is|are) (?!not\b)"), r"\1 not "),
)


def _with_article(text: str) -> str:
    """The text with "@" turned into an article if the noun after it takes one, or left out."""
    before, mark, after = text.partition("@ ")
    if not mark:
        return text
    alone = next((p for p in phrases(f"a {after}") if p.number.start == 0), None)
    takes = alone is not None and plural(alone.head.text) != alone.head.text
    return f"{before}{article(after)} {after}" if takes else before + after


def style(prompt: str, words: Words) -> list[str]:
    """Another medium than the one the prompt names before its "of"."""
    noun = style_noun(prompt)
    if noun is None or noun[1] == "picture":
        return []
    span, medium = noun
    others = [s for s in words.styles if _medium(s) != medium]
    return [rewrite(prompt, [(span, other)]) for other in others]


def _medium(text: str) -> str | None:
    return next((MEDIA[word] for word in reversed(text.split()) if word in MEDIA), None)


RULES: dict[str, Callable[[str, Words], list[str]]] = {
    **{"number": number, "colour": colour, "object": obj, "relation": relation},
    **{"attribute": attribute, "negation": negation, "style": style},
}
"""Kind of change -> (prompt, vocabulary) -> changed prompts, before anything is dropped."""


def _pairs(prompt: str) -> list[tuple[Token, Token | None]]:
    """Every word after the style with the one that follows it, those after a negator left out."""
    items = [token for token in tokens(prompt) if token.start >= style_end(prompt)]
    following: list[Token | None] = [*items[1:], None]
    previous = [None, *items[:-1]]
    return [
        (token, after)
        for token, after, before in zip(items, following, previous, strict=True)
        if before is None or before.word not in NEGATORS
    ]


def _exchanged(places: list[Token]) -> list[list[Edit]]:
    return [
        [(one.span, two.word), (two.span, one.word)]
        for i, one in enumerate(places)
        for two in places[i + 1 :]
        if one.word != two.word
    ]


def _family(word: str, families: tuple[Family, ...] | list[Family]) -> Family | None:
    return next((family for family in families if word in family), None)


def _replaced(
    places: list[tuple[Span, str]], families: tuple[Family, ...] | list[Family], words: Words
) -> list[list[Edit]]:
    """Each place with the next members of its word's family, round its end."""
    edits: list[list[Edit]] = []
    for span, word in places:
        family = _family(word, families)
        if family is not None:
            at = family.index(word)
            edits += [[(span, new)] for new in (family[at + 1 :] + family[:at])[: words.each]]
    return edits


@lru_cache(maxsize=32)
def _pattern(terms: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the terms as whole words, the longest first."""
    longest = "|".join(re.escape(term) for term in sorted(set(terms), key=len, reverse=True))
    return re.compile(rf"(?<![\w-])(?:{longest})(?![\w-])", re.IGNORECASE)


@lru_cache(maxsize=8)
def _nouns(words: Words) -> re.Pattern[str]:
    nouns = [noun for _, family in words.groups for noun in family]
    return _pattern((*nouns, *map(plural, nouns)))


def _group(noun: str, words: Words) -> str | None:
    """The kind that a noun belongs to, or None."""
    one = singular(noun).lower()
    return next((kind for kind, family in words.groups if one in family), None)


def _is_noun(token: Token, words: Words) -> bool:
    return _group(token.text, words) is not None


def _as(noun: str, model: str) -> str:
    """A noun in the number of another."""
    one = singular(noun).lower()
    return plural(one) if is_plural(model) else one


def _objects(prompt: str, words: Words) -> list[tuple[Span, str, bool]]:
    """Known nouns that stand for a thing, not in front of another noun, and whether they are denied."""
    objects = []
    start = style_end(prompt)
    for match in _nouns(words).finditer(prompt, start):
        after = next(iter(tokens(prompt[match.end() :])), None)
        if after and prompt[match.end()] == " " and not _ends_noun(after, match.group()):
            continue  # "dog house"
        before = {token.word for token in tokens(prompt[: match.start()])[-3:]}
        objects.append((match.span(), match.group(), bool(before & NEGATORS)))
    return objects


def _ends_noun(after: Token, noun: str) -> bool:
    """Whether a noun phrase ends before this token; a word in -s after a singular noun is its verb."""
    verbal = after.word.endswith(("ing", "ed", "ly")) or (is_plural(after.text) and not is_plural(noun))
    return verbal or ends_phrase(after, None) or after.word in ("left", "right", "sit", "stand", "lie", "fly")
