"""What two prompts mean, judged by their form: the same, or one entails the other."""

from __future__ import annotations

from functools import cache

from rewards.text.contrast_text import scene, tokens
from rewards.text.contrast_words import BOUNDARIES, CONVERSE, ENGLISH, NEGATORS, Words
from rewards.text.english import is_plural, plural, singular, value

DEEP = 250
"""Words of a text that are compared in every way, by calls that go as deep as there are words."""


def _plain(text: str) -> list[str]:
    """Words that mean the same written the same: case, numbers and articles, spelling, no marks."""
    words = (token.word for token in tokens(text) if token.text[0].isalnum())
    return [str(value(word)) if value(word) is not None else word.replace("gray", "grey") for word in words]


def canonical(text: str) -> str:
    """A form that is equal for texts of one meaning, such as "A left of B" and "B right of A"."""
    described = scene(text)
    if described is None:
        return " ".join(_plain(text))
    name, turned = CONVERSE[described.link]
    sides = [" ".join(_plain(side)) for side in (described.first, described.second)]
    sides = sorted(sides) if turned is None else sides[::-1] if turned else sides
    return " | ".join([" ".join(_plain(described.prefix)), sides[0], name, sides[1]])


def entailed(text: str, variant: str, words: Words = ENGLISH) -> bool:
    """Whether every image of `text` is one of `variant` too: something left out, or said more loosely.

    Judged by form: "a dog" of "a black dog", "A and B" of "A left of B", "an animal" of "a dog".
    """
    before, after = scene(text), scene(variant)
    if before and after and after.link == "and" and before.link not in ("and", "without"):
        things = {tuple(_plain(side)) for side in (before.first, before.second)}
        if things == {tuple(_plain(side)) for side in (after.first, after.second)}:
            return before.prefix.lower() == after.prefix.lower()
    full, part = _plain(text), _plain(variant)
    cut = next((i for i, word in enumerate(full) if word in NEGATORS), len(full))
    full = full[:cut] if cut == len(full) or not NEGATORS & set(part) else full
    while full and full[-1] in ("and", "with", "but"):
        full = full[:-1]
    return bool(part) and _left_out(tuple(full), tuple(part), words)


def _starts(word: str) -> bool:
    """Whether a word begins a new part of the sentence."""
    return word in BOUNDARIES or word.isdecimal() or word in ("left", "right") or word in NEGATORS


def _means(word: str, looser: str, words: Words) -> bool:
    if word == looser:
        return True
    one, many = singular(word), is_plural(word)
    return any(
        one in nouns and looser == (plural(kind) if many else kind)
        for kind, nouns in words.groups
        if kind != one
    )


def _left_out(full: tuple[str, ...], part: tuple[str, ...], words: Words) -> bool:
    """Whether `part` is `full` without whole modifiers and clauses; words never move to another noun.

    Of more than `DEEP` words it is enough that those of `part` are there in their order.
    """
    left = iter(full)
    if not all(any(_means(word, looser, words) for word in left) for looser in part):
        return False
    if len(full) > DEEP:
        return True

    @cache
    def match(i: int, j: int, previous: int) -> bool:
        if j == len(part):
            rest = full[previous + 1 :]
            return not rest or _starts(rest[0]) or rest[0].endswith("ing")
        if i == len(full):
            return False
        gap = full[previous + 1 : i]
        free = not gap or _starts(part[j]) or not any(map(_starts, gap)) or _only_number(gap, full[i])
        return (free and _means(full[i], part[j], words) and match(i + 1, j + 1, i)) or match(
            i + 1, j, previous
        )

    return match(0, 0, -1)


def _only_number(gap: tuple[str, ...], noun: str) -> bool:
    return len(gap) == 1 and gap[0].isdecimal() and gap[0] != "1" and is_plural(noun)
