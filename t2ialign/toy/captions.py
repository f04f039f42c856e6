"""Captions to draw: one random caption of each category, and which combinations are kept out of training."""

import hashlib
from collections.abc import Collection

import numpy as np

from rewards.toy.captions import (
    CATEGORIES,
    COMPARISONS,
    NUMBERS,
    PLURALS,
    RELATIONS,
    SIZES,
    Caption,
    Noun,
    parse,
)
from rewards.toy.world import COLOURS, SHAPES

# What no training caption contains: two colour-shape pairs, a quarter of the relation triples, and of what is
# left a quarter of the captions of one thing and half of those of two. Every word is still learned.
HELD_OUT_PAIRS = {("green", "circle"), ("black", "triangle")}
HELD_OUT_TRIPLES = {
    (SHAPES[i], relation, SHAPES[(i + shift) % len(SHAPES)])
    for shift, relation in enumerate(RELATIONS)
    for i in range(len(SHAPES))
}
HELD_OUT_SHARE = 0.25  # for each thing that a caption names


def write(caption: Caption) -> str:
    """Caption -> its text, the inverse of `rewards.toy.captions.parse`."""
    first = caption.nouns[0]
    if caption.category == "count":
        number = next(word for word, n in NUMBERS.items() if n == caption.count)
        shape = first.shape if caption.count == 1 else PLURALS[first.shape]
        return f"{number} {first.colour} {shape}"
    if caption.absent is not None:
        return f"a {first} and no {caption.absent}"
    if len(caption.nouns) == 2:
        return f"a {first} {caption.link or 'and'} a {caption.nouns[1]}"
    return f"a {first}"


def has_new_pair(caption: Caption) -> bool:
    """Whether it names a colour-shape pair that training never shows."""
    return any((noun.colour, noun.shape) in HELD_OUT_PAIRS for noun in caption.nouns)


def has_new_combination(caption: Caption) -> bool:
    """Whether it names a colour-shape pair or a relation triple that training never shows."""
    if has_new_pair(caption):
        return True
    if caption.category != "relation":
        return False
    first, second = caption.nouns
    return (first.shape, caption.link, second.shape) in HELD_OUT_TRIPLES


def is_held_out(text: str) -> bool:
    """Whether a caption is kept out of training: for a combination in it, or as the whole that it is."""
    caption = parse(text)
    return has_new_combination(caption) or _draw_of(text) < HELD_OUT_SHARE * len(caption.nouns)


def _draw_of(text: str) -> float:
    """A fixed number in [0, 1) for each caption, the same everywhere."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) / 2**32


def _noun(rng: np.random.Generator, size: str | None = None) -> Noun:
    return Noun(str(rng.choice(list(COLOURS))), str(rng.choice(SHAPES)), size)


def _two_nouns(rng: np.random.Generator) -> tuple[Noun, Noun]:
    first, second = _noun(rng), _noun(rng)
    return (first, second) if first != second else _two_nouns(rng)


def draw_caption(rng: np.random.Generator, category: str) -> Caption:
    """A random caption of a category, uniform over its words."""
    if category == "attribute":
        return Caption(category, (_noun(rng, [None, *SIZES][rng.integers(3)]),))
    if category == "count":
        return Caption(category, (_noun(rng),), count=int(rng.integers(1, 5)))
    if category == "negation":
        noun = _noun(rng)
        return Caption(category, (noun,), absent=str(rng.choice([s for s in SHAPES if s != noun.shape])))
    link = {"pair": None, "relation": str(rng.choice(RELATIONS)), "comparison": str(rng.choice(COMPARISONS))}
    if category not in link:
        raise ValueError(f"got category {category!r}; expected one of {', '.join(CATEGORIES)}")
    return Caption(category, _two_nouns(rng), link=link[category])


def draw_captions(
    count: int, seed: int, *, held_out: bool, unique: bool = False, without: Collection[str] = ()
) -> list[str]:
    """`count` caption texts balanced over the six categories, all of the training split or all held out.

    With `unique` no caption comes twice, and none is in `without`; a ValueError says so when a category has
    fewer than asked for.
    """
    rng, texts, seen = np.random.default_rng(seed), [], set[str]()
    for index in range(count):
        category = CATEGORIES[index % len(CATEGORIES)]
        for _ in range(10_000):
            text = write(draw_caption(rng, category))
            taken = text in without or (unique and text in seen)
            if is_held_out(text) == held_out and not taken:
                break
        else:
            raise ValueError(
                f"got a request for {count} unique captions; expected fewer of category {category!r}; "
                "lower the number"
            )
        seen.add(text)
        texts.append(text)
    return texts
