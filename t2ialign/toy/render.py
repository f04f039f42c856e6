"""Scenes of the toy world: things placed so that a caption is true and no two are close, and drawn."""

import numpy as np
from numpy.typing import NDArray

from rewards.toy.captions import Caption, Noun, judge, parse
from rewards.toy.world import CANVAS, COLOURS, SHAPES, WHITE, Array, Thing, coverage, distance_map

GAP = 2.6  # pixels of white between two things: closer ones merge in the latent space of the VAE
BORDER = 0.5  # pixels of white along the edge of the canvas
SMALLEST = 3.8  # equal-area radius; smaller shapes do not survive the VAE
SIZES: dict[str | None, tuple[float, float]] = {
    None: (SMALLEST, 8.5),
    "small": (SMALLEST, 4.8),
    "large": (7.0, 9.0),
}
COUNT_SIZES = {1: (SMALLEST, 8.5), 2: (SMALLEST, 6.0), 3: (SMALLEST, 5.0), 4: (SMALLEST, 4.6)}
PAIR_SIZE, COMPARED_SIZES = (SMALLEST, 6.5), ((6.4, 8.2), (SMALLEST, 4.8))
DISTRACTOR = 0.6  # share of the "no circle" scenes that show a second thing, which is not a circle
TRIES = 200


def place(rng: np.random.Generator, nouns: list[tuple[Noun, tuple[float, float]]]) -> list[Thing] | None:
    """Things of the given nouns and size ranges at random places, GAP apart; None when these do not fit."""
    things: list[Thing] = []
    near = np.zeros((CANVAS, CANVAS), dtype=bool)
    for noun, sizes in nouns:
        for _ in range(12):
            x, y = rng.uniform(SMALLEST, CANVAS - SMALLEST, size=2)
            thing = Thing(noun.shape, noun.colour, float(x), float(y), float(rng.uniform(*sizes)))
            # One more pixel all round stands for the canvas edge: ink there would be cut off.
            distance = distance_map(
                Thing(thing.shape, None, x + 1, y + 1, thing.size), CANVAS + 2, CANVAS + 2
            )
            edge = np.concatenate([distance[0], distance[-1], distance[:, 0], distance[:, -1]])
            inside = distance[1:-1, 1:-1]
            if edge.min() > BORDER and not (near & (inside < GAP / 2)).any():
                near |= inside < GAP / 2
                things.append(thing)
                break
        else:
            return None
    return things


def _wanted(rng: np.random.Generator, caption: Caption) -> list[tuple[Noun, tuple[float, float]]]:
    """The things that a scene of the caption shows, and the range of their sizes."""
    first = caption.nouns[0]
    if caption.category == "count":
        return [(first, COUNT_SIZES[caption.count])] * caption.count
    if caption.category == "comparison":
        large, small = COMPARED_SIZES if caption.link == "larger than" else COMPARED_SIZES[::-1]
        return [(first, large), (caption.nouns[1], small)]
    if caption.category == "attribute":
        return [(first, SIZES[first.size])]
    if caption.category == "negation":
        wanted = [(first, PAIR_SIZE)]
        if rng.random() < DISTRACTOR:
            others = [shape for shape in SHAPES if shape not in (caption.absent, first.shape)]
            wanted.append((Noun(str(rng.choice(list(COLOURS))), str(rng.choice(others))), PAIR_SIZE))
        return wanted
    return [(noun, PAIR_SIZE) for noun in caption.nouns]


def draw_scene(rng: np.random.Generator, caption: Caption) -> list[Thing]:
    """A random scene of which the caption is clearly true."""
    wanted = _wanted(rng, caption)
    for _ in range(TRIES):
        things = place(rng, wanted)
        if things is not None and all(judge(caption, things).values()) and _clear(caption, things):
            return things
    raise AssertionError(f"no scene found for {caption}")


def _clear(caption: Caption, things: list[Thing]) -> bool:
    """Relations are drawn well inside what the oracle accepts, so a pixel of drift does not flip them."""
    if caption.category != "relation":
        return True
    dx, dy = abs(things[0].x - things[1].x), abs(things[0].y - things[1].y)
    return dx > 1.3 * dy if caption.link in ("left of", "right of") else dy > 1.3 * dx


def paint(things: list[Thing]) -> Array:
    """Things -> (32, 32, 3) image in [0, 1], antialiased on white."""
    image = np.full((CANVAS, CANVAS, 3), WHITE)
    for thing in things:
        assert thing.colour is not None, "only things of a known colour can be drawn"
        ink = coverage(distance_map(thing))[..., None]
        image = image * (1 - ink) + ink * np.array(COLOURS[thing.colour])
    return image


def render(texts: list[str], seed: int) -> NDArray[np.uint8]:
    """Captions -> (N, 32, 32, 3) uint8 images; image i depends on (seed, i) and text i only."""
    images = np.empty((len(texts), CANVAS, CANVAS, 3), dtype=np.uint8)
    for index, text in enumerate(texts):
        things = draw_scene(np.random.default_rng((seed, index)), parse(text))
        images[index] = np.rint(paint(things) * 255)
    return images
