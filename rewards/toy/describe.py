"""What an image of the toy world shows, in words for people."""

from collections import Counter
from collections.abc import Sequence

from rewards.toy.captions import (
    COMPARISONS,
    LARGE_ABOVE,
    NUMBERS,
    PLURALS,
    RELATIONS,
    SMALL_BELOW,
    Caption,
    holds,
)
from rewards.toy.world import Thing

WORDS = {number: word for word, number in NUMBERS.items()}
"""2 -> two; larger numbers are written in digits."""


def describe(things: Sequence[Thing], caption: Caption | None = None) -> str:
    """The things of `rewards.toy.vision.read_things` in words, such as "a red circle left of a blue square".

    caption: the one that the image was drawn for; sizes are named, and things ordered, as it does.
    """
    known = [thing for thing in things if thing.shape and thing.colour]
    if caption is not None:
        known.sort(key=lambda thing: not caption.nouns[0].names(thing))
    linked = caption is None or caption.link is not None
    if len(things) == len(known) == 2 and linked:
        return _linked(known[0], known[1], caption)
    sized = caption is not None and any(noun.size for noun in caption.nouns)
    counts = Counter((_adjectives(thing, sized), thing.shape or "") for thing in known)
    parts = [_several(*name, count) for name, count in counts.items()]
    if unknown := len(things) - len(known):
        parts.append("something unreadable" if unknown == 1 else f"{_number(unknown)} unreadable things")
    return (" and " if len(parts) == 2 and not unknown else ", ").join(parts) or "nothing"


def _linked(one: Thing, other: Thing, caption: Caption | None) -> str:
    """Two things and how they lie, or in a comparison how their sizes compare."""
    sized = caption is not None and any(noun.size for noun in caption.nouns)
    if caption is not None and caption.category == "comparison":
        link = next((name for name in COMPARISONS if holds(name, one, other)), "as large as")
    elif caption is not None and caption.link is not None and holds(caption.link, one, other):
        link = caption.link
    else:
        link = next((name for name in _likely(one, other) if holds(name, one, other)), "beside")
    return f"a {_adjectives(one, sized)} {one.shape} {link} a {_adjectives(other, sized)} {other.shape}"


def _likely(one: Thing, other: Thing) -> tuple[str, ...]:
    """The relations, those along the longer of the two distances first."""
    aside = abs(one.x - other.x) >= abs(one.y - other.y)
    return RELATIONS if aside else RELATIONS[2:] + RELATIONS[:2]


def _adjectives(thing: Thing, sized: bool) -> str:
    size = "small" if thing.size < SMALL_BELOW else "large" if thing.size > LARGE_ABOVE else "middle-sized"
    return f"{size} {thing.colour}" if sized else f"{thing.colour}"


def _several(adjectives: str, shape: str, count: int) -> str:
    return f"a {adjectives} {shape}" if count == 1 else f"{_number(count)} {adjectives} {PLURALS[shape]}"


def _number(count: int) -> str:
    return WORDS.get(count, str(count))
