"""Key points of the toy world: every atom of a caption has one, and is judged as the oracle does."""

import pytest
import torch

import rewards
from rewards.keypoints.oracle import ToyChecker, shown, toy_points
from rewards.keypoints.rules import extract
from rewards.keypoints.taxonomy import KeyPoint
from rewards.scorers.textnorm import toy_near_misses
from rewards.toy.captions import parse
from rewards.toy.world import Thing
from t2ialign.toy.captions import draw_captions
from t2ialign.toy.render import render

WORLD = {
    "a small red circle": [
        ("size", "a small red circle", "small red circle"),
        ("negation", "nothing but a small red circle", "nothing else"),
    ],
    "three red circles": [
        ("counting", "three red circles", "3 x red circle"),
        ("negation", "nothing but three red circles", "nothing else"),
    ],
    "one red cross": [
        ("counting", "one red cross", "1 x red cross"),
        ("negation", "nothing but one red cross", "nothing else"),
    ],
    "a red circle and a blue square": [
        ("cross_entity_binding", "a red circle", "red circle"),
        ("cross_entity_binding", "a blue square", "blue square"),
        ("negation", "nothing but a red circle and a blue square", "nothing else"),
    ],
    "a red circle left of a blue square": [
        ("cross_entity_binding", "a red circle", "red circle"),
        ("cross_entity_binding", "a blue square", "blue square"),
        ("entity_layout", "a red circle left of a blue square", "red circle left of blue square"),
        ("negation", "nothing but a red circle and a blue square", "nothing else"),
    ],
    "a red circle larger than a large blue square": [
        ("cross_entity_binding", "a red circle", "red circle"),
        ("size", "a large blue square", "large blue square"),
        (
            "comparative_relation",
            "a red circle larger than a large blue square",
            "red circle larger than large blue square",
        ),
        ("negation", "nothing but a red circle and a large blue square", "nothing else"),
    ],
    "a red square and no circle": [
        ("material", "a red square", "red square"),
        ("negation", "no circle", "no circle"),
        ("negation", "nothing unknown", "nothing unknown"),
    ],
}


@pytest.mark.parametrize("text", WORLD)
def test_the_key_points_of_a_caption(text):
    assert toy_points(text) == [KeyPoint(*row) for row in WORLD[text]]


def test_a_colour_is_of_the_kind_that_the_rules_say():
    """Of several things their own, of the only one how it looks; a stated size comes before either."""
    met = set()
    for caption in draw_captions(300, 0, held_out=False):
        by_rules = {point.evidence: point.kind for point in extract(caption)}
        for point in toy_points(caption):
            if point.kind in ("material", "cross_entity_binding"):
                assert by_rules[point.evidence] == point.kind, caption
                met.add((parse(caption).category, point.kind))
    assert ("negation", "material") in met and ("relation", "cross_entity_binding") in met


def make_images() -> tuple[torch.Tensor, list[str], list[str]]:
    """Renders of captions and of their near misses, the captions, and what was drawn."""
    captions = draw_captions(18, 0, held_out=False)
    drawn = [text for caption in captions for text in (caption, *toy_near_misses(caption)[:2])]
    prompts = [caption for caption in captions for _ in range(1 + len(toy_near_misses(caption)[:2]))]
    return torch.from_numpy(render(drawn, 0)).permute(0, 3, 1, 2) / 255, prompts, drawn


def test_verdicts_are_the_atoms_of_the_oracle():
    images, prompts, drawn = make_images()
    evaluator = rewards.load("evaluator", backend="oracle", how="all")
    oracle = rewards.load("toy-oracle")
    evaluations = evaluator.judge(images, prompts)
    atoms = oracle.atoms(images, prompts)
    for one, wanted in zip(evaluations, atoms, strict=True):
        assert {v.point.evidence: bool(v.match) for v in one.verdicts} == wanted
    assert evaluator(images, prompts).tolist() == oracle(images, prompts).tolist()
    right = [
        one.score == 1
        for one, text, caption in zip(evaluations, drawn, prompts, strict=True)
        if text == caption
    ]
    assert all(right) and len(right) == 18
    wrong = [v for one in evaluations for v in one.verdicts if v.match == 0]
    assert {v.point.kind for v in wrong} >= {"counting", "entity_layout", "cross_entity_binding", "negation"}


def test_the_plain_score_is_the_share_of_atoms_and_says_what_is_there():
    image = torch.from_numpy(render(["a red circle left of a blue square"], 0)).permute(0, 3, 1, 2) / 255
    evaluator = rewards.load("evaluator", backend="oracle")
    prompt = "a blue square left of a red circle"
    (one,) = evaluator.judge(image, [prompt])
    assert [v.match for v in one.verdicts] == [1, 1, 0, 1] and one.score == 0.75
    assert one.verdicts[2].reason.startswith("there is ") and "red circle of radius" in one.verdicts[2].reason
    assert evaluator(torch.ones(1, 3, 32, 32), [prompt]).tolist() == [0.0]
    with pytest.raises(ValueError, match="which the toy world cannot judge"):
        evaluator(image, ["a dog"])


def test_a_point_is_judged_without_its_prompt():
    small, big = Thing("circle", "red", 5, 16, 4), Thing("square", "blue", 20, 16, 7)
    odd = Thing(None, "red", 20, 28, 4)
    for description, things, wanted in (
        ("a small red circle", [small], True),
        ("a large red circle", [small], False),
        ("two blue squares", [big, big], True),
        ("two blue squares", [big], False),
        ("nothing but two blue squares", [small, big], True),  # as many things; which ones, others say
        ("nothing but a blue square", [small, big], False),
        ("a blue square larger than a red circle", [small, big], True),
        ("a blue square left of a red circle", [small, big], False),
        ("no square", [small], True),
        ("no square", [small, big], False),
        ("nothing unknown", [small, big], True),
        ("nothing unknown", [small, odd], False),
    ):
        assert shown(KeyPoint("state", description), things) is wanted, description


@pytest.mark.parametrize(
    "description",
    [
        *("three dogs", "no dog", "a red circle and a blue square", "a red square and no circle"),
        "nothing but",
        "nothing but a red square and no circle",
        "nothing but a red circle left of a blue square",
        "nothing but no circle",
    ],
)
def test_what_the_world_cannot_judge(description):
    with pytest.raises(ValueError, match="which the toy world cannot judge"):
        ToyChecker().check(torch.ones(1, 3, 32, 32), [[("a prompt", KeyPoint("counting", description))]])
