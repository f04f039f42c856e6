"""Negations of a prompt: what is said to be absent, and whether a rewrite still says so."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from rewards.text.contrast_words import BOUNDARIES
from rewards.text.english import singular
from t2ialign.rewriting.negation_words import ABSENCE, FIGURATIVE, GENERIC, IDIOM, NEGATOR, SAME, SOFT


def _pattern(negators: str) -> re.Pattern[str]:
    return re.compile(
        rf"(?<![\w-])(?:(?P<people>no\s+one|nobody)|(?P<word>{negators})"
        r"|(?P<less>[a-z]+)less(?:ly)?|(?P<free>[a-z]{3,})-free)(?![\w-])",
        re.IGNORECASE,
    )


_HARD, _ANY = _pattern(NEGATOR), _pattern(f"{NEGATOR}|{SOFT}")
_IDIOM = re.compile(rf"(?:{IDIOM})\b", re.IGNORECASE)
_CLAUSE_END = re.compile(r"[.,;:!?()\"\u2014]|\b(?:but|while|which|because|so)\b", re.IGNORECASE)
_WORD = re.compile(r"[^\W\d_]+(?:['\u2019-][^\W\d_]+)*")
_EMPTY = frozenset(GENERIC | BOUNDARIES)
_REACH = 600  # letters on either side of a negator in which its clause is looked for
_NEITHER = re.compile(r"\bneither\b[^.;!?]*\bnor$", re.IGNORECASE)  # one negation in two words
_VERBAL = re.compile(r"not|never|cannot|\w+n['\u2019]t", re.IGNORECASE)
_LISTING = frozenset(("and", "or", "nor", "of", "the", "a", "an", "any", "his", "her", "its", "their", "no"))
_ENDINGS = ("less", "iness", "ness", "ing", "ed", "ly", "er", "e", "y")


@dataclass(frozen=True)
class Negation:
    """A negation: the stems of what is negated, the words that say so, and the stems around it."""

    stems: frozenset[str]
    evidence: str
    after: frozenset[str]
    """The words that follow in its clause."""
    clause: frozenset[str]


def negations(text: str) -> list[Negation]:
    """The negations of a text, without idioms such as "not only" and figures such as "countless"."""
    return [
        negation
        for match in _HARD.finditer(text)
        if not _IDIOM.match(text, match.start())
        and (match["less"] or "").lower() not in FIGURATIVE
        and not _NEITHER.search(text[max(0, match.start() - _REACH) : match.end()])
        if (negation := _negation(text, match))
    ]


def lost_negations(original: str, rewrite: str) -> list[str]:
    """The words of each negation of the original about which the rewrite states no absence.

    A negation of the rewrite that answers none by what it negates may answer one by its place: its clause has
    a word that follows the negator in the original ("not draw the sword", "the sword is not unsheathed").
    """
    wanted = negations(original)
    if not wanted:
        return []
    answers = [given for match in _ANY.finditer(rewrite) if (given := _negation(rewrite, match))]
    stated = _stated(rewrite)
    spare = [given for given in answers if not any(given.stems & negation.stems for negation in wanted)]
    lost = []
    for negation in wanted:
        if negation.stems & stated or any(negation.stems & given.stems for given in answers):
            continue
        answer = next((given for given in spare if negation.after & given.clause), None)
        if answer is None:
            lost.append(negation.evidence)
        else:
            spare.remove(answer)
    return lost


def stem(word: str) -> str:
    """A word without its ending, so that forms of one word are equal: opened, opening -> open."""
    word = singular(word.lower().replace("\u2019", "'").removesuffix("'s"))
    ending = next((end for end in _ENDINGS if word.endswith(end) and len(word) - len(end) >= 3), "")
    word = word.removesuffix(ending)
    word = word[:-1] if word.endswith("ck") else word  # panicked, panic
    return word[:-1] if len(word) > 3 and word[-1] == word[-2] else word


_MEANING = {stem(word): stem(group[0]) for group in SAME for word in group}


@lru_cache(maxsize=4096)
def _meaning(word: str) -> str:
    return _MEANING.get(stem(word), stem(word))


def _negation(text: str, match: re.Match[str]) -> Negation | None:
    first, last = max(0, match.start() - _REACH), match.end() + _REACH
    start = max((end.end() for end in _CLAUSE_END.finditer(text, first, match.start())), default=first)
    stop = _CLAUSE_END.search(text, match.end(), last)
    lead, rest = text[start : match.start()], text[match.end() : stop.start() if stop else last]
    before, after = _content(lead), _content(rest)
    around, follows = _stems(before + after), _stems(after)
    if whole := "people" if match["people"] else match["less"] or match["free"]:
        return Negation(frozenset([_meaning(whole)]), match.group(), follows, around)
    # What is negated comes after the negator or, where its clause ends there, before it: "is not around."
    if scope := _scope(rest, verbal=_VERBAL.fullmatch(match["word"]) is not None):
        end = match.end() + scope[-1].end()
        return Negation(_stems(scope), text[match.start() : end], follows, around)
    if nearest := before[-3:]:
        return Negation(_stems(nearest), text[start + nearest[0].start() : match.end()], follows, around)
    return None


def _scope(clause: str, verbal: bool) -> list[re.Match[str]]:
    """At most 4 content words of what is negated: a verb with its objects, or nouns up to where they are."""
    first = _content(clause)[:1]
    if not first:
        return []
    for word in _WORD.finditer(clause, first[0].end()):
        lower = word.group().lower()
        ends = lower in ("and", "as") if verbal else lower in BOUNDARIES and lower not in _LISTING
        if ends:
            return _content(clause[: word.start()])[:4]
    return _content(clause)[:4]


def _content(text: str) -> list[re.Match[str]]:
    words = _WORD.finditer(text)
    return [word for word in words if word.group().lower() not in _EMPTY and len(word.group()) > 1]


def _stems(words: list[re.Match[str]]) -> frozenset[str]:
    return frozenset(_meaning(word.group()) for word in words)


def _stated(text: str) -> set[str]:
    """Stems whose absence a text states with one word: silent, closed, unopened."""
    words = [word.group().lower() for word in _WORD.finditer(text)]
    stated = [absent for word in words for absent in ABSENCE.get(word, ())]
    stated += [word[2:] for word in words if word.startswith("un") and len(word) > 5]
    return {_meaning(absent) for absent in stated}
