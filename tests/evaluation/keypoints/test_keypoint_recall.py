"""Recall and precision of key points by hand, and the claim on published prompts."""

import json
import os
from pathlib import Path

import pytest

from rewards.detection.geneval_spec import parse_spec
from rewards.keypoints.rules import extract
from rewards.keypoints.taxonomy import KeyPoint, kinds
from t2ialign.evaluation.keypoints import recall as keypoint_recall
from t2ialign.evaluation.keypoints.recall import Found, compared

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
CHECKED = Path(__file__).parents[3] / "scripts" / "experiments" / "keypoint_checked.json"
PROMPTS = DATA / "t2i-compbench/examples/dataset"
PARTS = ("geneval/prompts/evaluation_metadata.jsonl", "t2i-compbench/examples/dataset", "unigenbench/data")
published = pytest.mark.skipif(
    not all((DATA / part).exists() for part in PARTS),
    reason=f"not all of {PARTS} in {DATA}; set T2IALIGN_DATA",
)


def test_bags_are_compared_with_repeats():
    found = compared(["a", "a", "b"], ["a", "b", "b", "c"])
    assert (found.expected, found.given, found.right) == (3, 4, 2)
    assert found.recall == pytest.approx(2 / 3) and found.precision == 0.5
    assert Found().recall == 1.0 and keypoint_recall.total([found, found]) == Found(6, 8, 4)


def says(*points: KeyPoint):
    return lambda prompt: points


def test_geneval_is_answered_by_number_colour_and_place():
    rows = [
        {"class": "dog", "count": 2, "color": "red"},
        {"class": "cat", "count": 1, "position": ["left of", 0]},
    ]
    spec = parse_spec({"prompt": "p", "tag": "position", "include": rows})
    right = says(
        KeyPoint("counting", "there are exactly two dogs"),
        KeyPoint("material", "the dogs are red"),
        KeyPoint("entity_layout", "the cat is left of the dog"),
    )
    assert keypoint_recall.geneval([spec], right) == dict.fromkeys(
        ("counting", "colour", "position"), Found(1, 1, 1)
    )
    wrong = says(
        KeyPoint("counting", "there are exactly three dogs"),
        KeyPoint("cross_entity_binding", "the cat is red"),
        KeyPoint("entity_layout", "the dog is left of the cat"),
    )
    assert keypoint_recall.geneval([spec], wrong) == dict.fromkeys(
        ("counting", "colour", "position"), Found(1, 1, 0)
    )


def test_a_checked_prompt_counts_each_kind_once(tmp_path):
    (tmp_path / "a_val.txt").write_text("first\nsecond\n")
    points = [["counting", "two"], ["counting", "three"], ["size", "big"]]
    file = tmp_path / "checked.json"
    file.write_text(json.dumps({"prompts": [{"file": "a_val.txt", "line": 2, "points": points}]}))
    given = {"second": [KeyPoint("counting", "x"), KeyPoint("state", "y"), KeyPoint("state", "z")]}
    found = keypoint_recall.checked(file, tmp_path, given.__getitem__)
    assert found["counting"] == Found(1, 1, 1) and found["size"] == Found(1, 0, 0)
    assert found["state"] == Found(0, 1, 0) and keypoint_recall.total(found.values()) == Found(2, 2, 1)
    file.write_text(json.dumps({"prompts": [{"file": "a_val.txt", "line": 3, "points": []}]}))
    with pytest.raises(ValueError, match=r"got line 3 of a_val\.txt"):
        keypoint_recall.checked(file, tmp_path, given.__getitem__)


def test_test_points_are_answered_by_any_mapped_kind(tmp_path):
    asked = json.dumps(
        {"Testpoints": ["Attribute - Color", "Style"], "Testpoint Description": ["red", "oil"]}
    )
    file = tmp_path / "points.csv"
    quoted = asked.replace('"', '""')
    file.write_text(f'index,prompt_en,sub_dims_en\n0,even,"{quoted}"\n1,odd,"{quoted}"\n')
    rows = list(keypoint_recall.test_points(file, 1))
    assert rows == [("odd", [("Attribute - Color", "red"), ("Style", "oil")])]
    found = keypoint_recall.unigenbench(rows, says(KeyPoint("material", "x")))
    assert found["Attribute - Color"] == Found(1, 0, 1) and found["Style"] == Found(1, 0, 0)
    with pytest.raises(ValueError, match="got test point 'Weather'"):
        keypoint_recall.unigenbench([("p", [("Weather", "")])], extract)
    file.write_text("index,prompt_en\n0,even\n")
    with pytest.raises(ValueError, match="with columns"):
        list(keypoint_recall.test_points(file, 0))


def test_every_test_point_is_mapped_to_kinds():
    assert len(keypoint_recall.MAPPING) == 27
    assert {kind for mapped in keypoint_recall.MAPPING.values() for kind in mapped} <= set(kinds())


def test_a_sample_needs_prompts(tmp_path):
    with pytest.raises(ValueError, match=r"without \*_val\.txt"):
        keypoint_recall.sample(tmp_path, 8, 0)


@published
def test_the_checked_prompts_are_the_sample():
    listed = json.loads(CHECKED.read_text())
    rows = [(row["file"], row["line"]) for row in listed["prompts"]]
    assert rows == keypoint_recall.sample(PROMPTS, 100, listed["seed"]) and len(set(rows)) == 100
    for row in listed["prompts"]:
        text = (PROMPTS / row["file"]).read_text().splitlines()[row["line"] - 1].lower()
        assert row["points"] and all(word in text for _, said in row["points"] for word in said.split())


@published
def test_rules_reach_what_is_claimed():
    found = keypoint_recall.figures(DATA, CHECKED, extract)
    for part in found["GenEval"].values():
        assert part.expected >= 80 and min(part.recall, part.precision) >= 0.95
    by_hand = keypoint_recall.total(found["T2I-CompBench"].values())
    assert by_hand.expected > 150 and min(by_hand.recall, by_hand.precision) >= 0.85
    odd = keypoint_recall.total(found["UniGenBench"].values())
    assert odd.expected > 850 and odd.recall >= 0.7
