"""The taxonomy is whole, and key points of a prompt survive a round trip or are refused with a reason."""

import pytest

from rewards.keypoints import taxonomy as keypoints
from rewards.keypoints.taxonomy import KeyPoint


def test_the_taxonomy_has_the_published_shape():
    kinds = keypoints.kinds()
    assert len(kinds) == 24 and len(keypoints.categories()) == 6
    sizes = [sum(kind.category == name for kind in kinds.values()) for name in keypoints.categories()]
    assert sizes == [3, 5, 6, 6, 2, 2]
    structural = [kind.id for kind in kinds.values() if "structure" in kind.criteria]
    assert structural == ["full_body_action", "hand_action", "animal_action", "contact_interaction"]
    assert all("consistency" in kind.criteria for kind in kinds.values())
    assert kinds["artistic_style"].share == 0.5 and kinds["entity_layout"].share == 0.02


def test_names_are_found_however_they_are_written():
    for name in ("Interaction without Contact", "non_contact_interaction", "Non-Contact  interaction"):
        assert keypoints.kind_named(name) == "non_contact_interaction"
    with pytest.raises(ValueError, match="got key point 'Weather'"):
        keypoints.kind_named("Weather")


def test_a_round_trip_and_what_is_refused():
    points = [KeyPoint("counting", "there are exactly three dogs", "three dogs")]
    assert keypoints.from_json(keypoints.to_json(points)) == points
    for rows, message in (
        ({}, "expected a list"),
        ([{"kind": "counting"}], "key point 0"),
        ([{"kind": "counting", "description": " "}], "without a description"),
        ([{"kind": "weather", "description": "rain"}], "got key point 'weather'"),
        ([{"kind": "counting", "description": "x", "evidence": 3}], "got evidence 3"),
        ([{"kind": "counting", "description": "x", "more": 3}], "key point 0"),
    ):
        with pytest.raises(ValueError, match=message):
            keypoints.from_json(rows)
    with pytest.raises(ValueError, match="got language 'xx'"):
        keypoints.kinds("xx")


def test_the_schema_names_every_kind():
    item = keypoints.schema()["items"]
    assert item["properties"]["kind"]["enum"] == list(keypoints.kinds())
    assert item["required"] == ["kind", "description"] and item["additionalProperties"] is False
