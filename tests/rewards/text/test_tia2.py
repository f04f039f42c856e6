"""TIA2's recipes against its published prompt sets."""

import os
from pathlib import Path

import pytest

from rewards.text import tia2
from rewards.text.contrast import read_sets

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data")) / "textnorm-tia2" / "prompts"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason=f"needs the published prompt sets in {DATA}")


@needs_data
def test_counting_reproduces_all_150_sets_in_order():
    published = read_sets(DATA / "prompt_set_counting.json")
    assert len(published) == 150
    assert list(tia2.counting_sets().items()) == list(published.items())


@needs_data
def test_composition_reproduces_the_part_made_by_rule():
    """Of the 32 contrasts of each of 300 prompts: 12 in all sets, the 13th in 275; the rest a model wrote."""
    published, ours = read_sets(DATA / "prompt_set_composition.json"), tia2.composition_sets()
    assert list(ours) == list(published)
    assert {len(rivals) for rivals in published.values()} == {32}
    assert {len(rivals) for rivals in ours.values()} == {tia2.RULE_MADE + 1}
    for prompt, rivals in published.items():
        assert ours[prompt][: tia2.RULE_MADE] == rivals[: tia2.RULE_MADE]
    other = {p: rivals[12] for p, rivals in published.items() if rivals[12] != ours[p][12]}
    assert len(other) == 25
    deers = [p for p, rival in other.items() if rival.replace("deers", "deer") == ours[p][12]]
    assert len(deers) == 24  # "three deers", a slip that no rule makes
    assert other["a realistic photo of an automobile and a truck"].endswith("two bicycles and three cars")


@needs_data
def test_the_rest_of_composition_follows_no_rule():
    """From the 14th on the sets differ, and some hold a prompt twice: they can only be read from file."""
    published = read_sets(DATA / "prompt_set_composition.json")
    tails = {tuple(rivals[13:]) for rivals in published.values()}
    assert len(tails) > 250
    assert any(len(set(tail)) < len(tail) for tail in tails)


@needs_data
def test_comprehensive_is_read_from_file():
    published = read_sets(DATA / "prompt_set_comprehensive.json")
    assert len(published) == 100
    assert sorted(map(len, published.values()))[0] == 2
    assert sorted(map(len, published.values()))[-1] == 23
    assert "Three cars on the street." in published["Two cars on the street."]


def test_recipes_by_hand():
    assert tia2.counting("deer", 1) == ["a realistic photo of two deer", "a realistic photo of three deer"]
    assert tia2.counting("umbrella", 3)[0] == "a realistic photo of an umbrella"
    assert tia2.composition("apple", "cat")[4] == "a realistic photo of two apples two cats"
    assert tia2.composition("apple", "cat")[10:] == [
        "a realistic photo of an apple-like cat",
        "a realistic photo of a cat-like apple",
        "a cartoon drawing of two apples and three cats",
    ]
