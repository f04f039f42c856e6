"""Reads a prompt without a parser: verbs by their forms, noun phrases by the words that end them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise, zip_longest

from rewards.keypoints import words
from rewards.keypoints.text import Attribute, Reading, Thing, Verb
from rewards.keypoints.verbs import ambiguous, lemma, listed
from rewards.keypoints.words import BE, DENIERS, DETERMINERS, NUMBER, PREPOSITIONS, kind_of, number
from rewards.text.contrast_text import Token, ends_phrase, style_end, tokens
from rewards.text.contrast_words import NOUNS_IN_ING
from rewards.text.english import is_plural, plural, singular

_QUOTED = re.compile(
    r"\"([^\"]+)\"|\u201c([^\u201d\"]+)[\u201d\"]|\u2018([^\u2019]+)\u2019(?!\w)"
    r"|(?<!\w)'([^']+(?:'\w[^']*)*)'(?!\w)"
)
_DENIER = re.compile(r"\b(?:no\s+one|anything\s+but)(?![\w-])", re.IGNORECASE)
_PREDICATE = re.compile(
    r"\s+(?:is|are|was|were)\s+(?:(?:both|all|very|entirely|painted)\s+)?([\w-]+)(?:\s+and\s+([\w-]+))?",
    re.IGNORECASE,
)


def read(prompt: str) -> Reading:
    """Read a prompt; words in quotation marks are no things of the image."""
    quotes: list[str] = []

    def blank(match: re.Match[str]) -> str:
        quotes.append(next(group for group in match.groups() if group))
        return " " * len(match.group())

    body = _QUOTED.sub(blank, prompt)
    items = tuple(_items(body))
    verbs = tuple(_verbs(items))
    reading = Reading(prompt, body, tuple(quotes), items, (), verbs)
    return replace(reading, things=tuple(_predicates(reading, _things(reading))))


def _items(body: str) -> list[Token]:
    """The words and marks; numbers of several words and "no one" are one each."""
    plain = tokens(body)
    spans = [match.span() for match in _DENIER.finditer(body)]
    spans += [match.span() for match in NUMBER.finditer(body) if not _twosome(match, plain)]
    whole = [Token(" ".join(body[slice(*span)].split()), *span) for span in spans]
    inside = {place for span in spans for place in range(*span)}
    rest = [token for token in plain if token.start not in inside]
    return sorted([*whole, *rest], key=lambda token: token.start)


def _twosome(match: re.Match[str], plain: list[Token]) -> bool:
    """Whether the words mean one thing that comes in pairs: a pair of glasses."""
    if "pair" not in match.group().lower():
        return False
    rest = (token for token in plain if token.start >= match.end())
    noun = next((token for token in rest if token.word in words.IN_TWOS or is_plural(token.text)), None)
    return noun is not None and noun.word in words.IN_TWOS


def _verbs(items: tuple[Token, ...]) -> Iterator[Verb]:
    for index, token in enumerate(items):
        base_form = _verb_at(items, index)
        if base_form is not None:
            yield Verb(base_form, index, token.start, token.end)


def _verb_at(items: tuple[Token, ...], index: int) -> str | None:
    """The lemma of the verb at a place: an inflected form after a noun or an auxiliary, a base after "to"."""
    word, before = items[index].word, items[index - 1].word if index else ""
    following = items[index + 1].word if index + 1 < len(items) else ""
    noun_before = bool(before) and before[0].isalnum() and before not in DETERMINERS | PREPOSITIONS
    named = kind_of(before) in (None, "feeling") or (kind_of(before) == "material" and _opens(following))
    plain = noun_before and named and number(before) is None
    if base_form := lemma(word):
        if word.endswith("ing"):
            return base_form if _is_action(word, before, following) else None
        if ambiguous(word) and not (
            plain and following and _opens(following) and following not in (",", "and")
        ):
            return None
        return base_form if plain or (word.endswith("ed") and before not in DETERMINERS) else None
    base = before in ("to", "can", "who", "that", "will") or (plain and is_plural(before) and before != "its")
    return word if base and word in words.BASE_VERBS and (before != "to" or following != "") else None


def _is_action(word: str, before: str, following: str) -> bool:
    """Whether a word in -ing is a verb: "is painting", "a man running"; not "a painting", "flowing water"."""
    if before in BE:
        return True
    if word in NOUNS_IN_ING or number(before) is not None or kind_of(before) not in (None, "feeling"):
        return False
    return _opens(following) or (before not in DETERMINERS and kind_of(word) is None)


def _opens(word: str) -> bool:
    """Whether a word opens the object of a verb."""
    return word in DETERMINERS or word in PREPOSITIONS or number(word) is not None or word in ("", ",", "and")


def _ends(token: Token, following: Token | None) -> bool:
    """Whether a noun phrase cannot go on with this token."""
    return number(token.word) is not None or token.word in DENIERS or ends_phrase(token, following)


def _things(reading: Reading) -> list[Thing]:
    """The noun phrases; counted adjectives have the noun of the next ("three red and two blue balls")."""
    things: list[Thing] = []
    later: list[Token] = []
    for run in reversed(list(_runs(reading))):
        if later and _shares(reading.items, run, later):
            noun = [token for token in later if token.end <= things[-1].end]
            *stem, last = noun[-len(things[-1].name.split(" ")) :]
            run = [*run, *stem, replace(last, text=plural(singular(last.text)))]
        things.append(_thing(reading, run))
        later = run
    return things[::-1]


def _shares(items: tuple[Token, ...], run: list[Token], later: list[Token]) -> bool:
    """Whether adjectives after a number are joined to a later phrase with a number of its own."""
    first, end, there = items.index(run[0]), items.index(run[-1]) + 1, items.index(later[0]) - 1
    if not first or there <= end or any(token.word not in (",", "and") for token in items[end:there]):
        return False
    other = items[there].word
    both = (number(items[first - 1].word) or 0) > 1 and number(other) is not None and other not in DETERMINERS
    return both and _bare(run) and not _bare(later)


def _bare(run: list[Token]) -> bool:
    """Whether a phrase consists of adjectives without a noun."""
    return not _counted(run[-1].text) and all(kind_of(t.word) or t.word in words.SHADES for t in run)


def _runs(reading: Reading) -> Iterator[list[Token]]:
    """The words of each phrase; adjectives before "and" belong to the next ("brown and white")."""
    run: list[Token] = []
    carried: list[Token] = []
    items, verbs = reading.items, {verb.index for verb in reading.verbs}
    first = next((i for i, t in enumerate(items) if t.start >= style_end(reading.body)), 0)
    for index, token in enumerate(items[first:], start=first):
        following = items[index + 1] if index + 1 < len(items) else None
        adjectives = bool(run) and all(kind_of(item.word) for item in run)
        if token.text == "," and adjectives and following and following.word not in DETERMINERS:
            continue
        before = items[index - 1].word if index else ""
        if not _breaks(token, following, run, before) and index not in verbs:
            run.append(token)
            continue
        if token.word == "and" and adjectives and following and not _ends(following, None):
            carried, run = carried + run, []
            continue
        if run:
            yield carried + run
        run, carried = [], []
    if run:
        yield carried + run


def _breaks(token: Token, following: Token | None, run: list[Token], before: str) -> bool:
    word = token.word
    if word.endswith("ing") and word not in NOUNS_IN_ING and not run:
        return before in BE | {"and", "while", "for", "by"} or (before == "," and kind_of(word) is None)
    if _ends(token, following) or word in PREPOSITIONS or word in DETERMINERS:
        return True
    if word in _STOPS or (word.endswith("ly") and len(word) > 5 and word not in words.NOUNS_IN_LY):
        return True
    if word in _PARTICIPLES and run:
        return True
    if before in BE and word.endswith("ed") and following and following.word in PREPOSITIONS:
        return True
    plain = bool(run) and kind_of(run[-1].word) is None
    if plain and word.endswith("ing") and word not in NOUNS_IN_ING:
        return True
    inflected = word.endswith("ed") and kind_of(word) != "colour"
    return plain and inflected and (following is None or _ends(following, None))


_PARTICIPLES = listed("hidden hung made held built worn seen shown cut lost caught written")
_STOPS = listed(
    """also very too so there then here just only even another other various all both either if because across
    upon him hers them itself himself herself themselves one's he'd together side-by-side s t away"""
)


def _thing(reading: Reading, run: list[Token]) -> Thing:
    items = reading.items
    index = items.index(run[0])
    determiner = items[index - 1].word if index else ""
    count = _count(determiner, run)
    if not (determiner in DETERMINERS or number(determiner) is not None or determiner in DENIERS):
        before, determiner = determiner, ""
    else:
        before = items[index - 2].word if index > 1 else ""
    if count > 1 and (many := [i for i, t in enumerate(run) if _counted(t.text)]):
        run = run[: many[-1] + 1]
    elif determiner in ("a", "an"):
        cut = next(
            (i for i, t in enumerate(run) if i and is_plural(t.text) and _plain_noun(run[i - 1])), None
        )
        run = run[:cut]
    described = [t for t, following in pairwise(run) if kind_of(t.word) or _shades(t, following)]
    last = described[-1] if described else None
    noun = run[run.index(last) + 1 :] if last else run
    return Thing(
        " ".join(t.text for t in noun),
        tuple(_attributes(described)),
        run[0].start,
        run[-1].end,
        before,
        determiner,
        count,
    )


def _count(determiner: str, run: list[Token]) -> int:
    """The count that a number before a phrase gives; 1 for a year, a measure or adjectives alone."""
    value = number(determiner) or 1
    year = determiner.isdecimal() and value >= 1000
    measure = run[0].word.rstrip("s") in words.UNITS or (run[0].word == "feet" and len(run) > 1)
    return 1 if year or measure or _bare(run) else value


def _plain_noun(token: Token) -> bool:
    return kind_of(token.word) is None


def _counted(word: str) -> bool:
    return is_plural(word) or plural(word) == word


def _shades(token: Token, following: Token) -> bool:
    """Whether a word belongs to the colour after it: dark green."""
    return token.word in words.SHADES and kind_of(following.word) == "colour"


def _attributes(described: list[Token]) -> Iterator[Attribute]:
    """The attributes of a thing; a shade goes with the colour after it."""
    shade = ""
    for token, following in zip_longest(described, described[1:]):
        if following is not None and _shades(token, following):
            shade = token.word + " "
            continue
        yield Attribute(shade + token.word, kind_of(token.word) or "")
        shade = ""


def _predicates(reading: Reading, things: list[Thing]) -> Iterator[Thing]:
    """Things with what a predicate adds: "the walls are white" is about white walls."""
    for thing in things:
        match = _PREDICATE.match(reading.body, thing.end)
        places = [place for place in (1, 2) if match and kind_of(match[place] or "")]
        if match and places and not _noun_follows(reading, match.end(places[-1])):
            added = (Attribute(match[place].lower(), kind_of(match[place]) or "") for place in places)
            yield replace(thing, attributes=(*thing.attributes, *added))
        elif not thing.attributes and not thing.determiner and _only_said(thing):
            continue
        else:
            yield thing


def _only_said(thing: Thing) -> bool:
    """Whether an adjective stands where a noun would: "stood tall", "is red"."""
    adjective = kind_of(thing.name) not in (None, "material") and thing.head not in words.ALL_THINGS
    return adjective and (thing.before in BE or lemma(thing.before) is not None)


def _noun_follows(reading: Reading, place: int) -> bool:
    following = next((token for token in reading.items if token.start >= place), None)
    return following is not None and not _ends(following, None) and lemma(following.word) is None
