"""A rewriter without a model: it says again, one thing a sentence, what is counted, placed and coloured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from rewards.contrast_text import ends_phrase, phrases, rewrite, scene, style_noun, tokens
from rewards.contrast_words import CONVERSE, ENGLISH, NEGATORS
from rewards.english import article, is_plural, singular
from t2ialign.rewriting.intensity import intensity, word_count
from t2ialign.rewriting.numbers import numbers
from t2ialign.rewriting.quotes import quoted, without_quotes

CLOSING = {
    "light": "Everything asked for is in clear view.",
    "medium": "Everything asked for is in clear view, and {style}.",
    "full": "Everything asked for is in clear view, whole and apart from its neighbours, the main things are "
    "large, the background stays behind them, and {style}.",
}
"""The last sentence of a rewrite by intensity; it names no light, no colour and no place of its own."""

_PAIR = re.compile(r"\b(?:a|one)\s+pair\s+of\b", re.IGNORECASE)
_NOUNS = {noun for _, nouns in ENGLISH.groups for noun in nouns}
_PLACES = {link for link in CONVERSE if link not in ("and", "with", "without")}
_LINK = {"left of": "to the left of", "right of": "to the right of"}
_REST_OF_GROUP = frozenset(
    ("the", "these", "those", "of", "other", "another", "more", "last", "first", "next")
)
_MIXED = frozenset(("and", "or", "-", "/", ","))


class Rules:
    """A `Rewriter` whose outputs are in the "tags" convention; the same prompt gives the same rewrite.

    Raises ValueError for an unknown intensity.
    """

    def __init__(self, strength: str = "medium") -> None:
        self.strength = strength
        self.words = intensity(strength).words

    def write(self, prompts: Sequence[str], *, attempt: int) -> list[str]:
        """B prompts -> B outputs; `attempt` changes nothing."""
        written = (explain(prompt, self.strength) for prompt in prompts)
        return [f"<think>{thought}</think><answer>{answer}</answer>" for thought, answer in written]


def explain(prompt: str, strength: str = "medium") -> tuple[str, str]:
    """(which rules fired, the rewrite): the prompt with blanks and pairs put right, then added sentences.

    Raises ValueError for an unknown intensity.
    """
    text, fired = _pairs_as_two(" ".join(prompt.split()))
    if text != prompt:
        fired = ["blanks", *fired] if " ".join(prompt.split()) != prompt else fired
    closing = _closing(text, strength)
    room = intensity(strength).words - word_count(closing)
    added: list[str] = []
    for rule, sentence in _sentences(without_quotes(text)):
        if sentence not in added and word_count(sentence) <= room:
            added.append(sentence)
            fired.append(f"{rule}: {sentence}")
            room -= word_count(sentence)
    end = "" if re.search(r"[.!?][\"'\u201d\u2019]?$", text) else "."
    fired.append(f"style: {strength}")
    return "Rules that fired. " + " ".join(_ended(rule) for rule in fired), " ".join(
        [text + end, *added, closing]
    )


def _ended(text: str) -> str:
    return text if text.endswith(".") else text + "."


def _pairs_as_two(text: str) -> tuple[str, list[str]]:
    """ "a pair of dogs" -> "two dogs"; glasses and wings keep their pair, and quoted text is not touched."""
    inside = [(quote.start, quote.end) for quote in quoted(text)]
    edits = [
        (found.span(), "two")
        for found in _PAIR.finditer(text)
        if not any(start < found.start() < end for start, end in inside)
        and numbers(text[found.start() :])[0].required
    ]
    return (rewrite(text, edits), ["pair: two"]) if edits else (text, [])


def _sentences(text: str) -> Iterator[tuple[str, str]]:
    """(rule, sentence) for what is counted, then placed, then coloured."""
    yield from (("count", sentence) for sentence in _counts(text))
    yield from (("place", sentence) for sentence in _places(text))
    yield from (("colour", sentence) for sentence in _colours(text))


def _counts(text: str) -> Iterator[str]:
    items = tokens(text)
    for phrase in phrases(text):
        before = [token.word for token in items if token.end <= phrase.number.start][-3:]
        again = (
            bool(before)
            and before[-1] in _REST_OF_GROUP
            and not text[: phrase.number.start].endswith(" of a ")
        )
        style = before[-2:] in (["photo", "of"], ["picture", "of"], ["image", "of"])
        if phrase.count > 1 and not NEGATORS.intersection(before) and (style or not again):
            yield f"There are exactly {text[phrase.number.start : phrase.head.end].lower()}."


def _places(text: str) -> Iterator[str]:
    found = scene(text)
    if found is None or found.link not in _PLACES:
        return
    sides = [_definite(side) for side in (found.first, found.second)]
    if None not in sides:
        first, second = sides
        verb = "are" if is_plural(found.first.split(" ")[-1]) else "is"
        yield f"The {first} {verb} {_LINK.get(found.link, found.link)} the {second}."


def _definite(side: str) -> str | None:
    """A noun phrase without its article, or None if it is negated or does not end in a known noun."""
    words = side.lower().split(" ")
    if words[0] in NEGATORS or singular(words[-1]) not in _NOUNS:
        return None
    return " ".join(words[1:] if words[0] in ("a", "an", "the") else words)


def _colours(text: str) -> Iterator[str]:
    """A sentence for each known noun that has one colour in the whole text."""
    items = tokens(text)
    colours: dict[str, list[tuple[str, str]]] = {}
    for index, token in enumerate(items):
        before = [item.word for item in items[max(0, index - 4) : index]]
        if token.word not in ENGLISH.colours or NEGATORS.intersection(before):
            continue
        mixed = before and before[-1] in _MIXED and items[index - 2].word in ENGLISH.colours
        for place, found in enumerate(items[index + 1 :], index + 1):
            if ends_phrase(found, items[place + 1] if place + 1 < len(items) else None):
                break
            if singular(found.word) in _NOUNS:
                noun = "" if mixed else text[token.end : found.end].strip().lower()
                colours.setdefault(found.word, []).append((noun, token.word))
                break
    for word, said in colours.items():
        seen = sum(singular(item.word) == singular(word) for item in items)
        if len(said) == seen == 1 and said[0][0]:
            yield f"The {said[0][0]} {'are' if is_plural(word) else 'is'} {said[0][1]}."


def _closing(text: str, strength: str) -> str:
    found = style_noun(text)
    medium = found[1] if found and found[1] != "picture" else None
    style = f"all of it is {article(medium)} {medium}" if medium else "all of it keeps to one style"
    return CLOSING[strength].format(style=style)
