"""Captions with one detail wrong: what is wrong, how often, and that no such scene makes its caption true."""

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest

from rewards.toy.captions import CATEGORIES, Caption, judge, parse
from t2ialign.toy.captions import HELD_OUT_PAIRS, draw_captions, write
from t2ialign.toy.mistakes import mistakes, near_miss, web_scenes
from t2ialign.toy.render import draw_scene


def wrong_of(text: str) -> list[str]:
    return [write(wrong) for wrong in mistakes(parse(text), np.random.default_rng(0))]


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a red circle left of a red square", ["a red circle right of a red square"]),
        ("a red circle below a blue circle", ["a red circle above a blue circle"]),
        ("three red circles", ["four red circles"]),
        ("two red circles", ["one red circle"]),
        ("a small red circle", ["a large red circle"]),
        ("a red circle and a blue square", ["a blue circle and a red square"]),
        (
            "a red circle larger than a blue square",
            ["a red circle smaller than a blue square", "a blue circle larger than a red square"],
        ),
        ("a red circle", []),
        ("a red circle and a red square", []),
        ("a red cross and a blue cross", []),
    ],
)
def test_one_detail_is_wrong(text: str, wrong: list[str]) -> None:
    assert wrong_of(text) == wrong
    assert all(text in wrong_of(one) for one in wrong)  # so both readings are equally likely


def test_an_ignored_negation_shows_the_thing() -> None:
    (scene,) = mistakes(parse("a red circle and no square"), np.random.default_rng(0))
    assert [noun.shape for noun in scene.nouns] == ["circle", "square"]


def test_on_the_web_each_reading_is_equally_likely_and_no_new_pair_is_shown() -> None:
    texts = draw_captions(2400, 5, held_out=False)
    scenes = web_scenes(texts, 6)
    assert scenes == web_scenes(texts, 6)
    right, expected, count = Counter[str](), dict.fromkeys(CATEGORIES, Fraction()), Counter[str]()
    for index, (text, scene) in enumerate(zip(texts, scenes, strict=True)):
        shown = [
            wrong for wrong in mistakes(parse(text), np.random.default_rng((6, index))) if not new(wrong)
        ]
        category = parse(text).category
        right[category] += text == scene
        expected[category] += Fraction(1, 1 + len(shown))
        count[category] += 1
        assert not new(parse(scene))
    for category, number in count.items():  # 4 standard deviations of a fair coin
        assert abs(right[category] - expected[category]) < 2 * number**0.5, category


def new(caption: Caption) -> bool:
    return bool({(noun.colour, noun.shape) for noun in caption.nouns} & HELD_OUT_PAIRS)


def test_no_scene_of_a_caption_makes_its_near_miss_or_its_mistake_true() -> None:
    rng = np.random.default_rng(1)
    for text in draw_captions(240, 8, held_out=False):
        things, miss = draw_scene(rng, parse(text)), near_miss(text, rng)
        assert miss != text
        assert not all(judge(parse(miss), things).values()), (text, miss)
        for wrong in mistakes(parse(text), rng):
            assert not all(judge(parse(text), draw_scene(rng, wrong)).values()), text
