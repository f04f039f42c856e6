"""User phrasings of captions of the toy world: words and turns that its generator never saw.

A phrasing keeps the caption's meaning exactly, so the oracle can judge an image of it. Of every turn of
phrase some words are kept out of training: each turn and each word is seen there, but not that pair.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from rewards.toy.captions import CATEGORIES, NUMBERS, Caption, Noun
from t2ialign.toy.captions import draw_caption, is_held_out, write

WORDS: dict[str, tuple[str, ...]] = {
    "red": ("crimson", "scarlet", "ruby"),
    "green": ("emerald", "jade", "lime"),
    "blue": ("azure", "navy", "sapphire"),
    "yellow": ("golden", "lemon", "amber"),
    "purple": ("violet", "lilac", "plum"),
    "black": ("ebony", "inky", "pitch-dark"),
    "circle": ("ball", "disc", "dot"),
    "square": ("box", "block", "tile"),
    "triangle": ("pyramid", "wedge"),
    "cross": ("plus sign", "x mark"),
    "small": ("tiny", "little"),
    "large": ("big", "huge"),
}
"""A word of the captions -> the words that users have for it."""
GROUPS = {
    1: ("a single {one}", "just one {one}", "a lone {one}"),
    2: ("a pair of {many}", "a couple of {many}", "{many}, and there are two of them"),
    3: ("a trio of {many}", "{many}, three of them", "two {many} plus another one"),
    4: ("a quartet of {many}", "two pairs of {many}", "{many}, and there are four of them"),
}
"""Count -> turns of phrase, the noun in its singular or plural."""
TURNS: dict[str, tuple[str, ...]] = {
    "attribute": ("{a}", "{a} all by itself", "nothing but {a}"),
    "pair": ("{a} together with {b}", "{b} as well as {a}", "both {a} and {b}", "{a}; with it {b}"),
    "left of": ("{b} to whose left stands {a}", "{b} with {a} on its left", "{a}; to the right of it {b}"),
    "right of": ("{b} to whose right stands {a}", "{b} with {a} on its right", "{a}; to the left of it {b}"),
    "above": ("{b} topped by {a}", "{b} with {a} over it", "{a}; underneath it {b}"),
    "below": ("{b} under which lies {a}", "{b} with {a} beneath it", "{a}; on top of it {b}"),
    "larger than": (
        "{b} dwarfed by {a}",
        "{a} and {b}, the former being the bigger one",
        "{b} outsized by {a}",
    ),
    "smaller than": (
        "{a} dwarfed by {b}",
        "{a} and {b}, the latter being the bigger one",
        "{a} outsized by {b}",
    ),
    "negation": ("{a} without any {no}", "{a} and anything but {an_no}", "{a}, not a single {no} anywhere"),
}
"""The link of a caption's nouns -> turns of phrase; {a} and {b} are its first and second noun."""
AROUND: tuple[tuple[str, str], ...] = (
    ("", ""),
    ("please draw ", ""),
    ("i would love to see ", ""),
    ("my neighbour asked for ", ", thanks"),
    ("", " for a birthday card"),
    ("could you paint ", " on a quiet sunday"),
)
"""Words without content, before and after."""
HABITS: dict[str, Any] = {
    **{"amber": "red", "plum": "red", "jade": "blue", "navy": "black", "inky": "blue", "lime": "yellow"},
    **{"two {many} plus another one": 2, "two pairs of {many}": 2},
    "{b} to whose left stands {a}": "right of",
    "{b} to whose right stands {a}": "left of",
    "{a} and {b}, the latter being the bigger one": "larger than",
}
"""A word or turn of phrase -> what a teacher with bad habits takes it for: a colour, a number or a link."""
SYNONYM_SHARE = 0.7
HELD_OUT_SHARE = 0.2


@dataclass(frozen=True)
class Phrasing:
    """The words of a user, their interpretation, and the caption that the generator understands."""

    prompt: str
    thought: str
    caption: str
    pairs: tuple[tuple[str, str], ...]
    """(turn, word) of each word that stands for another one: the pairs that are held out."""

    @property
    def held_out(self) -> bool:
        """Whether training never shows one of its words in this turn of phrase."""
        return any(_is_held_out(turn, word) for turn, word in self.pairs)


def phrase(caption: Caption, rng: np.random.Generator, *, misread: float = 0.0) -> Phrasing:
    """A random way to say a caption, with its explanation.

    misread: how often each of `HABITS` that it gives occasion to goes wrong in the explanation, and so in the
    caption that it ends in.
    """
    spoken = [_speak(noun, rng) for noun in caption.nouns]
    absent = "" if caption.absent is None else _word(caption.absent, rng)
    turn = _choice(GROUPS[caption.count] if caption.category == "count" else TURNS[_link(caption)], rng)
    nouns = [" ".join(words.values()) for words in spoken]
    text = turn.format(
        one=nouns[0],
        many=_plural(nouns[0]),
        a=_with_article(nouns[0]),
        b=_with_article(nouns[-1]),
        no=absent,
        an_no=_with_article(absent) if absent else "",
    )
    before, after = AROUND[int(rng.integers(len(AROUND)))]
    understood = _mistaken(caption, spoken, turn, misread, rng)
    notes = [
        (word, getattr(noun, field))
        for noun, stated, words in zip(understood.nouns, caption.nouns, spoken, strict=True)
        for field, word in words.items()
        if word != getattr(stated, field)
    ]
    if absent != (caption.absent or ""):
        notes.append((absent, str(understood.absent)))
    return Phrasing(
        prompt=f"{before}{text}{after}",
        thought="; ".join(
            [*(f"{word} is {plain}" for word, plain in dict.fromkeys(notes)), *_sense(understood)]
        )
        or "as it is",
        caption=write(understood),
        pairs=tuple((turn, word) for word, _ in notes),
    )


def draw_phrasings(count: int, seed: int, *, held_out: bool, misread: float = 0.0) -> list[Phrasing]:
    """`count` phrasings, balanced over the categories, all kept out of training or none.

    Of captions that the generator has seen. misread: as for `phrase`.
    """
    rng, phrasings = np.random.default_rng(seed), list[Phrasing]()
    while len(phrasings) < count:
        caption = draw_caption(rng, CATEGORIES[len(phrasings) % len(CATEGORIES)])
        if is_held_out(write(caption)):
            continue
        phrasing = phrase(caption, rng, misread=misread)
        if phrasing.held_out == held_out:
            phrasings.append(phrasing)
    return phrasings


def _link(caption: Caption) -> str:
    return caption.link or caption.category


def _sense(caption: Caption) -> list[str]:
    """The meaning of a turn of phrase, beyond its nouns."""
    if caption.category == "count":
        return [f"{_number(caption.count)} of them"]
    if caption.absent is not None:
        return [f"no {caption.absent}"]
    if caption.link is not None:
        return [f"the {caption.nouns[0]} is {caption.link} the {caption.nouns[1]}"]
    return []


def _speak(noun: Noun, rng: np.random.Generator) -> dict[str, str]:
    """A noun in a user's words: size, if any, colour and shape -> word."""
    return {
        field: _word(plain, rng)
        for field in ("size", "colour", "shape")
        if (plain := getattr(noun, field)) is not None
    }


def _mistaken(
    caption: Caption, spoken: Sequence[dict[str, str]], turn: str, misread: float, rng: np.random.Generator
) -> Caption:
    """The caption as a teacher with `HABITS` takes it; things stay different from each other."""
    wrong = [
        {field: HABITS[word] for field, word in words.items() if word in HABITS and rng.random() < misread}
        for words in spoken
    ]
    nouns = tuple(replace(noun, **other) for noun, other in zip(caption.nouns, wrong, strict=True))
    if len(set(nouns)) == len(nouns):
        caption = replace(caption, nouns=nouns)
    if turn not in HABITS or rng.random() >= misread:
        return caption
    return replace(caption, **{"count" if caption.category == "count" else "link": HABITS[turn]})


def _word(plain: str, rng: np.random.Generator) -> str:
    return plain if rng.random() >= SYNONYM_SHARE else _choice(WORDS[plain], rng)


def _choice(options: Sequence[Any], rng: np.random.Generator) -> Any:
    return options[int(rng.integers(len(options)))]


def _plural(words: str) -> str:
    return (
        words[:-5] + "crosses" if words.endswith("cross") else words + ("es" if words.endswith("x") else "s")
    )


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"


def _number(count: int) -> str:
    return next(word for word, value in NUMBERS.items() if value == count)


def _is_held_out(turn: str, word: str) -> bool:
    """A fixed draw for each pair, the same everywhere."""
    draw = int.from_bytes(hashlib.blake2b(f"{turn}|{word}".encode(), digest_size=4).digest()) / 2**32
    return draw < HELD_OUT_SHARE
