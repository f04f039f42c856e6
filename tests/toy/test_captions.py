"""The grammar of the toy world: parse inverts write, atoms mean what they say, splits do not leak."""

import numpy as np
import pytest

from rewards.toy.captions import CATEGORIES, Noun, judge, parse
from rewards.toy.world import Thing
from t2ialign.toy.captions import (
    HELD_OUT_PAIRS,
    HELD_OUT_TRIPLES,
    draw_caption,
    draw_captions,
    has_new_combination,
    write,
)

RED_CIRCLE = Thing("circle", "red", 8, 16, 5)
BLUE_SQUARE = Thing("square", "blue", 24, 17, 4)


@pytest.mark.parametrize("category", CATEGORIES)
def test_parse_inverts_write(category: str) -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        caption = draw_caption(rng, category)
        assert parse(write(caption)) == caption


@pytest.mark.parametrize(
    ("text", "things", "expected"),
    [
        ("a red circle", [RED_CIRCLE], True),
        ("a red circle", [RED_CIRCLE, BLUE_SQUARE], False),
        ("a small red circle", [RED_CIRCLE], True),
        ("a large red circle", [RED_CIRCLE], False),
        ("two red circles", [RED_CIRCLE, RED_CIRCLE], True),
        ("three red circles", [RED_CIRCLE, RED_CIRCLE], False),
        ("a red circle and a blue square", [BLUE_SQUARE, RED_CIRCLE], True),
        ("a blue circle and a red square", [BLUE_SQUARE, RED_CIRCLE], False),
        ("a red circle left of a blue square", [BLUE_SQUARE, RED_CIRCLE], True),
        ("a red circle right of a blue square", [BLUE_SQUARE, RED_CIRCLE], False),
        ("a red circle above a blue square", [BLUE_SQUARE, RED_CIRCLE], False),
        ("a red circle and no square", [RED_CIRCLE], True),
        ("a red circle and no square", [RED_CIRCLE, BLUE_SQUARE], False),
        ("a red circle and no triangle", [RED_CIRCLE, BLUE_SQUARE], True),
        ("a red circle and no square", [RED_CIRCLE, Thing(None, "blue", 24, 17, 4)], False),
        ("a red circle larger than a blue square", [RED_CIRCLE, BLUE_SQUARE], True),
        ("a red circle smaller than a blue square", [RED_CIRCLE, BLUE_SQUARE], False),
    ],
)
def test_judge(text: str, things: list[Thing], expected: bool) -> None:
    assert all(judge(parse(text), things).values()) is expected


def test_atoms_say_what_failed() -> None:
    atoms = judge(parse("a red circle right of a blue square"), [RED_CIRCLE, BLUE_SQUARE])
    assert atoms == {
        "red circle": True,
        "blue square": True,
        "red circle right of blue square": False,
        "nothing else": True,
    }


def test_unknown_text_shows_the_grammar() -> None:
    with pytest.raises(ValueError, match=r"'a crimson blob'.*a small red circle"):
        parse("a crimson blob")


def test_splits_share_no_combination() -> None:
    train, held = (draw_captions(1200, 0, held_out=held_out) for held_out in (False, True))
    assert not set(train) & set(held)
    for text in train:
        caption = parse(text)
        assert not {(noun.colour, noun.shape) for noun in caption.nouns} & HELD_OUT_PAIRS
        if caption.category == "relation":
            first, second = caption.nouns
            assert (first.shape, caption.link, second.shape) not in HELD_OUT_TRIPLES
    new = [has_new_combination(parse(text)) for text in held]
    assert 0.2 < sum(new) / len(new) < 0.6  # the others are whole captions that training never had


def test_every_word_is_still_trained_on() -> None:
    held_out_words = {word for text in draw_captions(600, 0, held_out=True) for word in text.split()}
    trained_words = {word for text in draw_captions(600, 0, held_out=False) for word in text.split()}
    assert held_out_words <= trained_words


def test_captions_are_balanced_and_seeded() -> None:
    texts = draw_captions(60, 3, held_out=False)
    assert [parse(text).category for text in texts] == list(CATEGORIES) * 10
    assert texts == draw_captions(60, 3, held_out=False) != draw_captions(60, 4, held_out=False)
    assert len(set(draw_captions(120, 3, held_out=False, unique=True))) == 120


def test_captions_that_are_taken_are_left_out() -> None:
    taken = draw_captions(120, 3, held_out=False, unique=True)
    rest = draw_captions(240, 0, held_out=False, without=set(taken))
    assert len(rest) == 240 and not set(taken) & set(rest)
    assert draw_captions(60, 0, held_out=False, without=()) == draw_captions(60, 0, held_out=False)


def test_more_unique_captions_than_exist() -> None:
    with pytest.raises(ValueError, match="lower the number"):
        draw_captions(600, 0, held_out=True, unique=True)


def test_size_words() -> None:
    small, large = Noun("red", "circle", "small"), Noun("red", "circle", "large")
    assert small.names(Thing("circle", "red", 9, 9, 4)) and not large.names(Thing("circle", "red", 9, 9, 4))
    assert large.names(Thing("circle", "red", 9, 9, 8)) and not small.names(Thing("circle", "red", 9, 9, 8))
