"""Captions with one detail wrong: as the web has them, and as near misses to learn from.

Guidance raises the odds of the right reading of a caption against the wrong one to the power of its scale,
so that it removes mistakes that are rare. What is wrong as often as right it cannot: that is left for
alignment.
"""

from dataclasses import replace

import numpy as np

from rewards.toy.captions import SIZES, Caption, Noun, parse
from rewards.toy.world import COLOURS, SHAPES
from t2ialign.toy.captions import has_new_pair, write

MISTAKEN_SHARE = 2 / 3  # of the near misses, where there is something to mistake
OPPOSITE = {
    **{"left of": "right of", "right of": "left of", "above": "below", "below": "above"},
    **{"larger than": "smaller than", "smaller than": "larger than", "large": "small", "small": "large"},
}
OTHER_COUNT = {1: 2, 2: 1, 3: 4, 4: 3}
"""Each number is mistaken for one other, and that one for it, so both readings of it are equally likely."""


def mistakes(caption: Caption, rng: np.random.Generator) -> list[Caption]:
    """The caption with one detail wrong, for each that it states: the order of a relation or comparison,
    which colour belongs to which shape, the number, the size, or what should not be there.
    """
    first, *others = caption.nouns
    if caption.category == "count":
        return [replace(caption, count=OTHER_COUNT[caption.count])]
    if caption.absent is not None:
        present = Noun(str(rng.choice(list(COLOURS))), caption.absent)
        return [Caption("pair", (first, present))]
    if first.size is not None:
        return [replace(caption, nouns=(replace(first, size=OPPOSITE[first.size]),))]
    wrong = [] if caption.link is None else [replace(caption, link=OPPOSITE[caption.link])]
    if others and first.colour != others[0].colour and first.shape != others[0].shape:
        swapped = replace(first, colour=others[0].colour), replace(others[0], colour=first.colour)
        wrong.append(replace(caption, nouns=swapped))
    return wrong


def web_scenes(texts: list[str], seed: int) -> list[str]:
    """Captions -> those of the scenes that they stand beside on the web: each reading is equally likely.

    The readings of a caption are what it says and its `mistakes`. No scene shows a colour-shape pair that
    training never shows.
    """
    scenes = []
    for index, text in enumerate(texts):
        rng, caption = np.random.default_rng((seed, index)), parse(text)
        readings = [caption, *(wrong for wrong in mistakes(caption, rng) if not has_new_pair(wrong))]
        scenes.append(write(readings[int(rng.integers(len(readings)))]))
    return scenes


def near_miss(text: str, rng: np.random.Generator) -> str:
    """A caption that no scene shows together with this one: one of its `mistakes`, or another word in it.

    Of a negation only the first: a scene of it may show other things, of which another caption may be true.
    """
    caption = parse(text)
    wrong = mistakes(caption, rng) if caption.absent or rng.random() < MISTAKEN_SHARE else []
    return write(wrong[int(rng.integers(len(wrong)))] if wrong else _other_word(caption, rng))


def _other_word(caption: Caption, rng: np.random.Generator) -> Caption:
    """One word of a noun replaced; where that would make two nouns equal, another one."""
    place = int(rng.integers(len(caption.nouns)))
    noun = caption.nouns[place]
    words = {"colour": list(COLOURS), "shape": list(SHAPES), "size": list(SIZES) if noun.size else []}
    field = str(rng.choice([name for name, options in words.items() if options]))
    other = str(rng.choice([word for word in words[field] if word != getattr(noun, field)]))
    changed = replace(noun, **{field: other})
    if changed in caption.nouns:
        return _other_word(caption, rng)
    nouns = [changed if i == place else unchanged for i, unchanged in enumerate(caption.nouns)]
    return replace(caption, nouns=tuple(nouns))
