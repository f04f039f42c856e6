"""Phrasings mean what their captions say; training sees every turn and word, but not the held-out pairs."""

import numpy as np
import pytest

from rewards.toy.captions import CATEGORIES, parse
from t2ialign.toy.captions import draw_caption, is_held_out
from t2ialign.toy.phrasings import AROUND, GROUPS, HABITS, TURNS, WORDS, draw_phrasings, phrase


@pytest.mark.parametrize("seed", range(3))
def test_the_thought_explains_every_word_that_stands_for_another(seed):
    rng = np.random.default_rng(seed)
    for caption in (
        "a red circle left of a large blue square",
        "a small black cross and no circle",
        "two red crosses",
    ):
        found = phrase(parse(caption), rng)
        assert found.caption == caption
        for _, word in found.pairs:
            plain = next(plain for plain, words in WORDS.items() if word in words)
            assert f"{word} is {plain}" in found.thought and word.split()[0] in found.prompt


def test_turns_by_hand():
    for turns, category in (("left of", "a red circle left of a blue square"),):
        texts = {phrase(parse(category), np.random.default_rng(seed)).prompt for seed in range(300)}
        bare = {text for text in texts if all(word in text for word in ("red circle", "blue square"))}
        assert any("blue square to whose left stands a red circle" in text for text in bare)
        assert any("a red circle; to the right of it a blue square" in text for text in bare)
        assert len(TURNS[turns]) == 3
    pairs = {phrase(parse("two red crosses"), np.random.default_rng(seed)).prompt for seed in range(300)}
    assert any("a pair of red crosses" in text for text in pairs)
    assert any("red x marks" in text for text in pairs)


def test_no_word_of_a_user_is_a_word_of_the_captions():
    plain = set(WORDS)
    assert not any(set(word.split()) & plain for words in WORDS.values() for word in words)
    assert all(not set(" ".join(around).split()) & plain for around in AROUND)


def test_held_out_pairs_are_new_but_their_turns_and_words_are_not():
    known = draw_phrasings(6000, 1, held_out=False)
    new = draw_phrasings(600, 2, held_out=True)
    seen = {pair for phrasing in known for pair in phrasing.pairs}
    assert all(any(pair not in seen for pair in phrasing.pairs) for phrasing in new)
    assert {word for words in WORDS.values() for word in words} == {word for _, word in seen}
    every = {turn for turns in (*GROUPS.values(), *TURNS.values()) for turn in turns}
    assert every == {turn for turn, _ in seen}
    assert not {phrasing.prompt for phrasing in known} & {phrasing.prompt for phrasing in new}


def test_draws_are_balanced_repeatable_and_of_the_asked_captions():
    first, again = (draw_phrasings(60, 5, held_out=True) for _ in range(2))
    assert first == again
    counts = [sum(parse(p.caption).category == name for p in first) for name in CATEGORIES]
    assert counts == [10] * 6 and not any(is_held_out(p.caption) for p in first)


def test_a_teacher_with_habits_errs_there_and_nowhere_else():
    for category in ("attribute", "count", "pair", "relation", "comparison", "negation"):
        for seed in range(60):
            true = draw_caption(np.random.default_rng(seed), category)
            right, wrong = (phrase(true, np.random.default_rng(seed), misread=share) for share in (0.0, 1.0))
            assert right.prompt == wrong.prompt
            caption, pairs = parse(wrong.caption), dict.fromkeys(turn for turn, _ in right.pairs)
            said = {word for _, word in right.pairs} & set(HABITS)
            for a, b in zip(true.nouns, caption.nouns, strict=True):
                assert (a.shape, a.size) == (b.shape, b.size)
                assert a.colour == b.colour or b.colour in {HABITS[word] for word in said}
                assert f" {b.colour}" in wrong.caption
            if caption.count != true.count or caption.link != true.link:
                assert not pairs or set(pairs) & set(HABITS)


def test_habits_are_met_as_often_as_asked():
    rng = np.random.default_rng(0)
    one = parse("a purple circle")
    taken = [phrase(one, rng, misread=0.6) for _ in range(3000)]
    plum = [p for p in taken if "plum" in p.prompt]
    share = sum(p.caption == "a red circle" for p in plum) / len(plum)
    assert abs(share - 0.6) < 0.08  # of about 700
    assert all("plum is red" in p.thought for p in plum if p.caption == "a red circle")
    assert {p.caption for p in taken if "plum" not in p.prompt} == {"a purple circle"}
