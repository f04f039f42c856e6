"""What prompts mean by form: counted nouns, pairs, sameness, entailment."""

import pytest

from rewards.text.contrast_meaning import canonical, entailed
from rewards.text.contrast_text import phrases, rewrite, scene


def heads(text):
    return [(phrase.count, phrase.head.text) for phrase in phrases(text)]


@pytest.mark.parametrize(
    ("text", "nouns"),
    [
        ("a photo of a confused grizzly bear in calculus class", [(1, "bear")]),
        ("One cat and three dogs sitting on the grass.", [(1, "cat"), (3, "dogs")]),
        ("a cat sits on a wooden dining table", [(1, "cat"), (1, "table")]),
        ("two cats sit on the sofa", [(2, "cats")]),
        ("a big, red dog wearing a hat", [(1, "dog"), (1, "hat")]),
        ("a dog barks loudly", [(1, "dog")]),
        ("a house made of two slices of bread", [(1, "house"), (2, "slices")]),
        ("an orange", [(1, "orange")]),
        ("a blue square", [(1, "square")]),
        ("a lot of people", []),
        ("a 1960s poster", [(1, "poster")]),
        ("3 apples in a bowl", [(3, "apples"), (1, "bowl")]),
    ],
)
def test_counted_nouns(text, nouns):
    assert heads(text) == nouns


def test_the_verb_of_a_subject_is_found_behind_another_noun():
    subject, hat, bench = phrases("an old man wearing a hat sits on a bench")
    assert subject.verb.text == "sits"
    assert hat.verb is None
    assert bench.verb is None


def test_scene_is_two_linked_nouns():
    parts = scene("A photo of a red book to the left of two vases.")
    assert (parts.prefix, parts.first, parts.link, parts.second) == (
        *("A photo of", "a red book", "to the left of"),
        "two vases",
    )
    assert scene("a cat") is None
    assert scene("a cat and a dog and a bird") is None
    assert scene("cats left of dogs") is None


def test_rewrite_keeps_articles_and_capitals():
    assert rewrite("A cat and an owl", [((2, 5), "owl"), ((13, 16), "cat")]) == "An owl and a cat"
    assert rewrite("Red apples", [((0, 3), "green")]) == "Green apples"
    assert rewrite("a red hat", [((2, 5), "orange")]) == "an orange hat"


SAME = [
    ("a red circle left of a blue square", "a blue square right of a red circle"),
    ("a cat above a dog", "a dog below a cat"),
    ("a cat and a dog", "A dog and one cat."),
    ("a photo of a cat and a dog", "a photo of a dog and a cat"),
    ("three cats", "3 cats!"),
    ("a gray cat", "A grey  cat"),
    ("a circle larger than a square", "a square smaller than a circle"),
    ("a cat next to a dog", "a dog beside a cat"),
]
OTHER = [
    ("a red circle left of a blue square", "a blue square left of a red circle"),
    ("a cat and no dog", "a dog and no cat"),
    ("a cat with a hat", "a hat with a cat"),
    ("two cats", "a cat"),
    ("a photo of a cat and a dog", "a sketch of a cat and a dog"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_one_meaning_has_one_form(one, other):
    assert canonical(one) == canonical(other)


@pytest.mark.parametrize(("one", "other"), OTHER)
def test_other_meanings_have_other_forms(one, other):
    assert canonical(one) != canonical(other)


ENTAILED = [
    ("a black dog", "a dog"),
    ("a cat and a dog", "a cat"),
    ("a cat and a dog", "a dog"),
    ("a red circle left of a blue square", "a red circle and a blue square"),
    ("a red circle left of a blue square", "a blue square and a red circle"),
    ("a red circle left of a blue square", "a circle left of a square"),
    ("two cats sleeping on a sofa", "two cats"),
    ("two cats", "cats"),
    ("a realistic photo of an apple", "an apple"),
    ("a red square and no circle", "a red square"),
    ("a dog on a sofa", "an animal on a sofa"),
    ("two dogs", "two animals"),
]
NOT_ENTAILED = [
    ("a dog", "a black dog"),
    ("a red circle and a blue square", "a red square"),
    ("a red circle and a blue square", "a blue circle"),
    ("two cats and three dogs", "two dogs"),
    ("two cats", "a cat"),
    ("a red square and no circle", "a red square and a circle"),
    ("a red square and no circle", "a circle"),
    ("a red circle and a blue square", "a red circle left of a blue square"),
    ("a cat without a hat", "a cat with a hat"),
    ("a dog", "a cat"),
    ("a dog", "an animal and a cat"),
    ("a dog house", "a dog"),
]


@pytest.mark.parametrize(("text", "variant"), ENTAILED)
def test_what_is_left_out_is_entailed(text, variant):
    assert entailed(text, variant)


@pytest.mark.parametrize(("text", "variant"), NOT_ENTAILED)
def test_what_is_changed_or_added_is_not(text, variant):
    assert not entailed(text, variant)
