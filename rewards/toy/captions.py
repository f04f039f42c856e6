"""Captions of the toy world: a small grammar, parsed into atoms that an image passes or fails.

Six categories: attribute ("a small red circle"), count ("three red circles"), pair ("a red circle and a blue
square"), relation ("a red circle left of a blue square"), negation ("a red square and no circle") and
comparison ("a red circle larger than a blue square"). Except for negation, nothing else may be on the canvas.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from rewards.toy.world import COLOURS, SHAPES, Thing

NUMBERS = {"one": 1, "two": 2, "three": 3, "four": 4}
SIZES = ("small", "large")
RELATIONS = ("left of", "right of", "above", "below")
COMPARISONS = ("larger than", "smaller than")
CATEGORIES = ("attribute", "count", "pair", "relation", "negation", "comparison")
PLURALS = {shape: shape + ("es" if shape.endswith("s") else "s") for shape in SHAPES}

SMALL_BELOW, LARGE_ABOVE = 5.5, 6.2  # equal-area radius in pixels of a 32 pixel canvas
LARGER_BY = 1.15  # ratio of sizes from which one thing counts as larger than another
MOSTLY = 0.8  # "left of" asks that the step to the left be at least this share of the step up or down

_COLOUR, _SHAPE = "|".join(COLOURS), "|".join(SHAPES)
_ONE = rf"an? (?:(small|large) )?({_COLOUR}) ({_SHAPE})"
_MANY = rf"({'|'.join(NUMBERS)}) ({_COLOUR}) ({'|'.join([*SHAPES, *PLURALS.values()])})"
_SINGLE = re.compile(_ONE)
_COUNT = re.compile(_MANY)
_NEGATION = re.compile(rf"{_ONE} and no ({_SHAPE})")
_TWO = re.compile(rf"{_ONE} (and|{'|'.join([*RELATIONS, *COMPARISONS])}) {_ONE}")


@dataclass(frozen=True)
class Noun:
    """The words of a caption about one thing; `size` is "small", "large" or None."""

    colour: str
    shape: str
    size: str | None = None

    def __str__(self) -> str:
        return " ".join(word for word in (self.size, self.colour, self.shape) if word)

    def names(self, thing: Thing) -> bool:
        """Whether the thing has this colour, shape and size."""
        fits = thing.colour == self.colour and thing.shape == self.shape
        if self.size == "small":
            return fits and thing.size < SMALL_BELOW
        if self.size == "large":
            return fits and thing.size > LARGE_ABOVE
        return fits


@dataclass(frozen=True)
class Caption:
    """A parsed caption: `link` joins the nouns of a relation or comparison, `absent` must not be there."""

    category: str
    nouns: tuple[Noun, ...]
    count: int = 1
    link: str | None = None
    absent: str | None = None


def parse(text: str) -> Caption:
    """Caption text -> Caption. Raises ValueError, with an example of each category, for any other text."""
    text = " ".join(text.lower().strip(" .").split())
    if match := _NEGATION.fullmatch(text):
        return Caption("negation", (_noun(match, 1),), absent=match[4])
    if match := _TWO.fullmatch(text):
        link = match[4]
        category = "pair" if link == "and" else "relation" if link in RELATIONS else "comparison"
        return Caption(category, (_noun(match, 1), _noun(match, 5)), link=None if link == "and" else link)
    if match := _COUNT.fullmatch(text):
        singular = next(s for s in SHAPES if match[3] in (s, PLURALS[s]))
        return Caption("count", (Noun(match[2], singular),), count=NUMBERS[match[1]])
    if match := _SINGLE.fullmatch(text):
        return Caption("attribute", (_noun(match, 1),))
    raise ValueError(
        f"got caption {text!r}, which the toy world cannot judge; expected the form of "
        "'a small red circle', 'three red circles', 'a red circle and a blue square', "
        "'a red circle left of a blue square', "
        "'a red square and no circle' or 'a red circle larger than a blue square'"
    )


def _noun(match: re.Match[str], group: int) -> Noun:
    return Noun(match[group + 1], match[group + 2], match[group])


def holds(link: str, a: Thing, b: Thing) -> bool:
    """Whether `a link b` is true of two things, e.g. a "left of" b; y points down."""
    if link in COMPARISONS:
        return a.size / b.size >= LARGER_BY if link == "larger than" else b.size / a.size >= LARGER_BY
    right, down = b.x - a.x, b.y - a.y
    along = {"left of": right, "right of": -right, "above": down, "below": -down}[link]
    across = down if link in ("left of", "right of") else right
    return along > 0 and along >= MOSTLY * abs(across)


def judge(caption: Caption, things: Sequence[Thing]) -> dict[str, bool]:
    """Pass or fail of every atom of the caption; the image passes when all are true."""
    atoms: dict[str, bool] = {}
    for noun in caption.nouns:
        if caption.category == "count":
            atoms[f"{caption.count} x {noun}"] = sum(map(noun.names, things)) == caption.count
        else:
            atoms[str(noun)] = any(map(noun.names, things))
    if caption.link is not None:
        first, second = caption.nouns
        name = f"{first} {caption.link} {second}"
        atoms[name] = any(
            holds(caption.link, a, b)
            for a in things
            if first.names(a)
            for b in things
            if b is not a and second.names(b)
        )
    if caption.absent is not None:
        atoms[f"no {caption.absent}"] = all(thing.shape != caption.absent for thing in things)
        atoms["nothing unknown"] = all(thing.shape and thing.colour for thing in things)
    else:
        atoms["nothing else"] = len(things) == caption.count * len(caption.nouns)
    return atoms
