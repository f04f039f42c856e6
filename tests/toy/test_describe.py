"""What the oracle reads in an image, in words: those of the caption that asked for it."""

import pytest

from rewards.toy.captions import CATEGORIES, parse
from rewards.toy.describe import describe
from rewards.toy.vision import read_things
from rewards.toy.world import Thing
from t2ialign.toy.captions import draw_captions
from t2ialign.toy.render import render

RED, BLUE = Thing("circle", "red", 8, 16, 5), Thing("square", "blue", 24, 17, 7)
JUNK, ODD = Thing(None, "blue", 20, 20, 4), Thing("circle", None, 20, 8, 4)


@pytest.mark.parametrize(
    ("things", "caption", "words"),
    [
        ([], None, "nothing"),
        ([RED], None, "a red circle"),
        ([RED, BLUE], None, "a red circle left of a blue square"),
        ([Thing("cross", "blue", x, 9, 4) for x in (4, 14, 24)], None, "three blue crosses"),
        ([Thing("cross", "blue", 4 * x, 9, 2) for x in range(6)], None, "6 blue crosses"),
        ([RED, JUNK], None, "a red circle, something unreadable"),
        ([JUNK, ODD], None, "two unreadable things"),
        ([RED, BLUE, JUNK], None, "a red circle, a blue square, something unreadable"),
        ([RED, BLUE], "a blue square right of a red circle", "a blue square right of a red circle"),
        ([RED, BLUE], "a red circle above a blue square", "a red circle left of a blue square"),
        ([RED, BLUE], "a blue square and a red circle", "a blue square and a red circle"),
        ([RED, BLUE], "a green square and a red cross", "a red circle and a blue square"),
        ([RED, BLUE], "a blue square smaller than a red circle", "a blue square larger than a red circle"),
        ([RED, RED], "a red circle larger than a blue square", "a red circle as large as a red circle"),
        ([BLUE], "a small blue square", "a large blue square"),
        ([Thing("circle", "red", 8, 8, 6)], "a small red circle", "a middle-sized red circle"),
        ([RED, RED], "three red circles", "two red circles"),
    ],
)
def test_things_in_words(things: list[Thing], caption: str | None, words: str) -> None:
    assert describe(things, parse(caption) if caption else None) == words


def test_what_a_right_image_shows_is_what_its_caption_says() -> None:
    """But that "one" is "a", and that a negation leaves open what else is there."""
    captions = [text for text in draw_captions(60, 0, held_out=False) if " no " not in text]
    assert {parse(text).category for text in captions} == set(CATEGORIES) - {"negation"}
    for text, image in zip(captions, render(captions, 0), strict=True):
        assert describe(read_things(image / 255), parse(text)) == text.replace("one ", "a ")
