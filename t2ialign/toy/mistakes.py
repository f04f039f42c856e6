"""Captions with one detail wrong: as the web has them, and as near misses to learn from.

Guidance raises the odds of the right reading of a caption against the wrong one to the power of its scale,
so that it removes mistakes that are rare. What is wrong as often as right it cannot: that is left for
alignment.
"""

from dataclasses import replace

import numpy as np

from rewards.toy.captions import SIZES, Caption, Noun, parse
from rewards.toy.world import COLOURS, SHAPES
from t2ialign.toy.captions import HELD_OUT_PAIRS, write

WRONG = 0.5  # of the captions that state a detail
WRONG_BINDING = 2 / 3  # of pairs: relations and comparisons, whose colours are right, teach binding again
MISTAKEN_SHARE = 2 / 3  # of the near misses, where there is something to mistake
OPPOSITE = {
    **{"left of": "right of", "right of": "left of", "above": "below", "below": "above"},
    **{"larger than": "smaller than", "smaller than": "larger than", "large": "small", "small": "large"},
}
OTHER_COUNT = {1: 2, 2: 1, 3: 4, 4: 3}
"""Each number is mistaken for one other, and that one for it, so both readings of it are equally likely."""


def mistaken(caption: Caption, rng: np.random.Generator) -> Caption | None:
    """The caption with its one detail wrong: the order of a relation or comparison, which colour belongs to
    which shape, the number, the size, or what should not be there. None where nothing of these is stated.
    """
    first, *others = caption.nouns
    if caption.category == "count":
        return replace(caption, count=OTHER_COUNT[caption.count])
    if caption.link is not None:
        return replace(caption, link=OPPOSITE[caption.link])
    if caption.absent is not None:
        present = Noun(str(rng.choice(list(COLOURS))), caption.absent)
        return Caption("pair", (first, present))
    if first.size is not None:
        return replace(caption, nouns=(replace(first, size=OPPOSITE[first.size]),))
    if not others or first.colour == others[0].colour or first.shape == others[0].shape:
        return None
    swapped = replace(first, colour=others[0].colour), replace(others[0], colour=first.colour)
    return replace(caption, nouns=swapped)


def web_scenes(texts: list[str], seed: int) -> list[str]:
    """Captions -> those of the scenes that they stand beside on the web, about half of them `mistaken`.

    No scene shows a colour-shape pair that training never shows.
    """
    scenes = []
    for index, text in enumerate(texts):
        rng = np.random.default_rng((seed, index))
        caption = parse(text)
        share = WRONG_BINDING if caption.category == "pair" else WRONG
        scene = mistaken(caption, rng) if rng.random() < share else None
        scenes.append(text if scene is None or _has_new_pair(scene) else write(scene))
    return scenes


def near_miss(text: str, rng: np.random.Generator) -> str:
    """A caption that no scene shows together with this one: `mistaken`, or another word in its place."""
    caption = parse(text)
    wrong = mistaken(caption, rng) if rng.random() < MISTAKEN_SHARE else None
    return write(_other_word(caption, rng) if wrong is None else wrong)


def _other_word(caption: Caption, rng: np.random.Generator) -> Caption:
    """One word of a noun replaced; where that would make two nouns equal, another one."""
    place = int(rng.integers(len(caption.nouns)))
    noun = caption.nouns[place]
    words = {"colour": list(COLOURS), "shape": list(SHAPES), "size": list(SIZES) if noun.size else []}
    field = str(rng.choice([name for name, options in words.items() if options]))
    other = str(rng.choice([word for word in words[field] if word != getattr(noun, field)]))
    changed = replace(noun, **{field: other})
    if changed in caption.nouns or changed.shape == caption.absent:
        return _other_word(caption, rng)
    nouns = [changed if i == place else unchanged for i, unchanged in enumerate(caption.nouns)]
    return replace(caption, nouns=tuple(nouns))


def _has_new_pair(caption: Caption) -> bool:
    return any((noun.colour, noun.shape) in HELD_OUT_PAIRS for noun in caption.nouns)
