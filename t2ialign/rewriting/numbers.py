"""Numbers of a prompt: which of them count something, and whether a rewrite still says them.

"three dogs" is "3 dogs"; "a pair of", "a couple of" and "dozen" are numbers. A rewrite may drop: ordinals,
decades and sizes ("21st", "1980s", "50mm"), compounds that name a kind ("two-story"), "one" as a pronoun and
in idioms, "the two" of things named before, and pairs that are one thing or come in twos (glasses, wings).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import zip_longest

from rewards.text.contrast_text import Token, ends_phrase, tokens
from rewards.text.contrast_words import ENGLISH
from rewards.text.english import NUMBERS, is_plural, plural, singular


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_TENS = {
    **{"twenty": 20, "thirty": 30, "forty": 40, "fifty": 50},
    **{"sixty": 60, "seventy": 70, "eighty": 80, "ninety": 90},
}
_POWERS = {"hundred": 100, "thousand": 1000, "million": 1_000_000}
_SMALL_VALUES = {word: number for number, word in enumerate(NUMBERS)} | _TENS
_ONES, _TEENS, _TEN = "|".join(NUMBERS[1:10]), "|".join(NUMBERS[10:20][::-1]), "|".join(_TENS)
_SMALL = rf"(?:(?:{_TEN})(?:[-\s](?:{_ONES}))?|{_TEENS}|{_ONES})"
_POWER = "|".join(_POWERS)
_NUMBER = re.compile(
    rf"""(?<![\w.:/-])(?:
        (?P<digits>\d+(?:,\d{{3}})*(?:[.:]\d+)?)(?![\w/]|[.:]\d)
      | (?P<dozen>(?:half\s+a|a\s+half|a|{_SMALL}|\d+)\s+dozen)\b
      | (?P<pair>(?:a|one)\s+(?:\w+\s+)?(?:pair|couple)\s+of)\b
      | (?P<words>(?:(?:a|{_SMALL})\s+)?(?:{_POWER})(?:\s+(?:and\s+)?{_SMALL})?|{_SMALL})\b
    )""",
    re.IGNORECASE | re.VERBOSE,
)

IN_TWOS = _words(
    """scissors glasses sunglasses spectacles goggles jeans pants trousers shorts headphones tights tongs
    binoculars tweezers pliers pajamas pyjamas leggings overalls earphones shears wings eyes hands shoes
    gloves boots socks earrings ears legs arms feet horns sneakers slippers sandals mittens antlers skis
    skates heels stockings handcuffs tusks claws paws wheels lungs"""
)
"""Nouns whose pair is one thing, or comes in twos by nature: a rewrite need not say "pair"."""

_ONE_IDIOMS = _words("day side hand end point time corner foot knee way thing arm leg eye place part")
_PRONOUN_BEFORE = _words("no this that each every any another which the some")

_GROUPS = {
    **dict.fromkeys(("both", "twin", "twins", "duo", "couple", "pair", "pairs", "double", "dual"), 2),
    **dict.fromkeys(("trio", "triplet", "triplets", "triple", "third"), 3),
    **dict.fromkeys(("quartet", "quadruple", "fourth"), 4),
    **{"quintet": 5, "fifth": 5, "sixth": 6, "seventh": 7, "eighth": 8, "ninth": 9, "tenth": 10, "dozen": 12},
}
"""Words of a rewrite that say a number without counting; an ordinal is the last of an enumeration."""
_ONE_AND_OTHER = re.compile(r"\b(?:one|first)\b.*?\b(?:other|another|second)\b", re.IGNORECASE | re.DOTALL)
NEAR = 120
"""Letters before and after a number that say what it counts."""
_NOUNS = {noun for _, nouns in ENGLISH.groups for noun in nouns}


@dataclass(frozen=True)
class Number:
    """A number of a text: its value in digits ("3", "1.5", "10:10"), what it counts, the words for both."""

    value: str
    noun: str
    """Singular and in lower case; "" where nothing is counted."""
    evidence: str
    required: bool
    """Whether a rewrite has to keep it."""


def numbers(text: str) -> list[Number]:
    """Every number of a text, in order."""
    return [_number(text, match) for match in _NUMBER.finditer(text)]


def lost_numbers(original: str, rewrite: str) -> list[str]:
    """The words of each number of the original that the rewrite does not say."""
    wanted = [number for number in numbers(original) if number.required]
    if not wanted:
        return []
    given, spoken = numbers(rewrite), _spoken(rewrite)
    words = {token.word for token in tokens(rewrite)}
    lost = []
    for number in wanted:
        others = {other.noun for other in wanted} - {number.noun}
        if number.value == "1" and number.noun:
            survives = number.noun in words or plural(number.noun) not in words
        else:
            named = number.value in spoken or number.value == _enumerated(number.noun, rewrite)
            survives = named or _survives(number, given, others)
        if not survives:
            lost.append(number.evidence)
    return lost


def _survives(wanted: Number, given: list[Number], others: set[str]) -> bool:
    """Whether a number of the rewrite is the asked one: same noun, or none that counts another asked thing.

    Counts of the same noun may add up to it: "two dogs lie and one dog stands" are three dogs.
    """
    same = [number.value for number in given if wanted.noun and number.noun == wanted.noun]
    if any(value != "1" for value in same):
        return wanted.value in same or str(sum(map(_small, same))) == wanted.value
    return any(number.value == wanted.value and number.noun not in others for number in given)


def _spoken(text: str) -> set[str]:
    values = {str(_GROUPS[token.word]) for token in tokens(text) if token.word in _GROUPS}
    return values | ({"2"} if _ONE_AND_OTHER.search(text) else set())


def _enumerated(noun: str, text: str) -> str:
    """The number of times a thing is introduced in the singular: "a white cat beside an old cat" has two."""
    one = rf"\b(?:an?|one|another|other)\s+(?:[\w-]+\s+){{0,3}}?{re.escape(noun)}\b"
    return str(len(re.findall(one, text, re.IGNORECASE))) if noun else ""


def _number(text: str, match: re.Match[str]) -> Number:
    value, spelled = _value(match), match["digits"] is None
    after = text[match.end() : match.end() + NEAR]
    compound = re.match(r"-([a-z]+)", after, re.IGNORECASE)
    if compound:  # six-legged counts legs; two-story names a kind of house
        counts = compound[1].lower().endswith("ed") and value != "1"
        return Number(value, "", match.group() + compound.group(), counts)
    noun, end = _noun(after, value)
    before = re.search(r"(\w+)\W*$", text[max(0, match.start() - NEAR) : match.start()])
    required = _required(value, noun, spelled, before[1].lower() if before else "")
    if match["pair"] and plural(noun) in IN_TWOS:
        required = False
    return Number(value, noun, text[match.start() : match.end() + end], required)


def _required(value: str, noun: str, spelled: bool, before: str) -> bool:
    if value == "1" and spelled:
        return bool(noun) and noun not in _ONE_IDIOMS and before not in _PRONOUN_BEFORE
    if spelled and not noun:
        return before == "number"
    return True


def _value(match: re.Match[str]) -> str:
    if match["digits"]:
        return match["digits"].replace(",", "")
    words = re.split(r"[-\s]+", match.group().lower())
    if match["pair"]:
        return "2"
    if match["dozen"]:
        count = 0.5 if "half" in words else _sum(words[:-1]) or 1
        return str(int(12 * count))
    return str(_sum(words))


def _sum(words: list[str]) -> int:
    """two hundred and five -> 205"""
    total = 0
    for word in words:
        if word in _POWERS:
            total = max(total, 1) * _POWERS[word]
        else:
            total += _small(word) or _SMALL_VALUES.get(word, 0)
    return total


def _small(text: str) -> int:
    """The number that digits write; 0 for other text, and for more digits than anything is counted with."""
    return int(text) if text.isdecimal() and len(text) <= 18 else 0


def _noun(after: str, value: str) -> tuple[str, int]:
    """The noun that a number before these words counts, and its end; ("", 0) without one."""
    items = tokens(after)
    for token, following in zip_longest(items, items[1:]):
        if ends_phrase(token, following):
            break
        if value == "1" and token.word in _NOUNS:
            return token.word, token.end
        if value != "1" and _several(token):
            return singular(token.word), token.end
    return "", 0


def _several(token: Token) -> bool:
    return is_plural(token.word) or plural(token.word) == token.word
