"""Captions with one detail wrong: what is wrong, how often, and that no such scene makes its caption true."""

from collections import Counter

import numpy as np
import pytest

from rewards.toy.captions import judge, parse
from t2ialign.toy.captions import HELD_OUT_PAIRS, draw_captions, write
from t2ialign.toy.mistakes import mistaken, near_miss, web_scenes
from t2ialign.toy.render import draw_scene


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("a red circle left of a blue square", "a red circle right of a blue square"),
        ("a red circle below a blue square", "a red circle above a blue square"),
        ("a red circle larger than a blue square", "a red circle smaller than a blue square"),
        ("three red circles", "four red circles"),
        ("two red circles", "one red circle"),
        ("a small red circle", "a large red circle"),
        ("a red circle and a blue square", "a blue circle and a red square"),
    ],
)
def test_one_detail_is_wrong(text: str, wrong: str) -> None:
    scene = mistaken(parse(text), np.random.default_rng(0))
    assert scene is not None and write(scene) == wrong
    back = mistaken(scene, np.random.default_rng(0))
    assert back is not None and write(back) == text  # both readings are equally likely


def test_an_ignored_negation_shows_the_thing() -> None:
    scene = mistaken(parse("a red circle and no square"), np.random.default_rng(0))
    assert scene is not None and [noun.shape for noun in scene.nouns] == ["circle", "square"]


@pytest.mark.parametrize(
    "text", ["a red circle", "a red circle and a red square", "a red cross and a blue cross"]
)
def test_nothing_to_mistake(text: str) -> None:
    assert mistaken(parse(text), np.random.default_rng(0)) is None


def test_the_web_is_wrong_in_its_share_of_what_can_be_wrong_and_never_shows_a_new_pair() -> None:
    texts = draw_captions(1200, 5, held_out=False)
    scenes = web_scenes(texts, 6)
    assert scenes == web_scenes(texts, 6)
    changed, possible = Counter[str](), Counter[str]()
    for text, scene in zip(texts, scenes, strict=True):
        category = parse(text).category
        possible[category] += mistaken(parse(text), np.random.default_rng(0)) is not None
        changed[category] += text != scene
        assert not {(noun.colour, noun.shape) for noun in parse(scene).nouns} & HELD_OUT_PAIRS
    for (
        category,
        count,
    ) in possible.items():  # 4 standard deviations of a fair coin, and a tenth for new pairs
        assert 0.4 * count - 2 * count**0.5 < changed[category] < 0.5 * count + 2 * count**0.5, category


def test_no_scene_of_a_caption_makes_its_near_miss_or_its_mistake_true() -> None:
    rng = np.random.default_rng(1)
    for text in draw_captions(240, 8, held_out=False):
        things, miss = draw_scene(rng, parse(text)), near_miss(text, rng)
        assert miss != text
        assert not all(judge(parse(miss), things).values()), (text, miss)
        wrong = mistaken(parse(text), rng)
        if wrong is not None:
            assert not all(judge(parse(text), draw_scene(rng, wrong)).values()), text
