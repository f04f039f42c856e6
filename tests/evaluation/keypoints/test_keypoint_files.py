"""Key points of benchmark files: any spelling of a kind, four formats, and rows that are wrong are named."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from rewards.detection.geneval_spec import read_specs
from rewards.keypoints.taxonomy import KeyPoint, kinds, to_json
from t2ialign.evaluation.keypoints import recall as keypoint_recall
from t2ialign.evaluation.keypoints.files import PointFile, kind_spelled

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
GENEVAL = DATA / "geneval/prompts/evaluation_metadata.jsonl"
UNIGENBENCH = DATA / "unigenbench/data/test_prompts_en.csv"
published = pytest.mark.skipif(
    not (GENEVAL.is_file() and UNIGENBENCH.is_file()), reason=f"no prompts in {DATA}; set T2IALIGN_DATA"
)

ROWS = [
    {
        "index": 0,
        "language": "en",
        "prompt": "three dogs\nand no cat",
        "prompt_points": ["Counting", "negation"],
        "prompt_points_des": ["three dogs", "there isn't a cat"],
    },
    {
        "index": 1,
        "language": "zh",
        "prompt": "other",
        "prompt_points": ["Weather"],
        "prompt_points_des": ["rain"],
    },
]
WANTED = [KeyPoint("counting", "three dogs"), KeyPoint("negation", "there isn't a cat")]


def lines(file: Path, *rows: dict) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((kind.name, kind.id) for kind in kinds().values()),
        *((kind.id.upper().replace("_", "-"), kind.id) for kind in kinds().values()),
        ("full body  ACTION", "full_body_action"),
        ("Visual Attributes - Material", "material"),
        ("Relations: Comparative", "comparative_relation"),
        ("Action / Hand", "hand_action"),
        ("Attribute - Quantity", "counting"),
        ("Attribute - Color", "material"),
        ("Style", "artistic_style"),
    ],
)
def test_a_kind_is_known_by_any_spelling(name, kind):
    assert kind_spelled(name) == kind


@pytest.mark.parametrize("name", ["Weather", "", "Text", "Relation"])
def test_what_could_be_several_kinds_or_none_is_refused(name):
    with pytest.raises(ValueError, match="expected one of negation, attribute_consistency"):
        kind_spelled(name)


def csv(file: Path, shown) -> Path:
    def cell(value):
        return '"' + (value if isinstance(value, str) else shown(value)).replace('"', '""') + '"'

    head = ",".join(ROWS[0])
    file.write_text("\n".join([head, *(",".join(map(cell, row.values())) for row in ROWS)]) + "\n")
    return file


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "python.csv", "parquet"])
def test_the_published_table_in_every_format(tmp_path, kind):
    file = tmp_path / f"table.{kind}"
    if kind == "jsonl":
        lines(file, *ROWS)
    elif kind == "json":
        file.write_text(json.dumps(ROWS))
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(ROWS), file)
    else:
        csv(file, repr if kind == "python.csv" else json.dumps)
    points = PointFile(file)
    assert points("three dogs and no cat") == WANTED == points(" three  dogs\nand no cat ")
    with pytest.raises(ValueError, match=r"table.*(line|row|item) \d: got key point 'Weather'"):
        points("other")
    with pytest.raises(ValueError, match=r"got prompt 'a third', which .* lacks; expected one of its 2"):
        points("a third")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt_points": ["Counting"]}, "line 1: got 1 key points and 2 descriptions"),
        ({"prompt_points": "Counting"}, "line 1: got prompt_points 'Counting'; expected a list of texts"),
        ({"prompt_points_des": [1, 2]}, r"line 1: got prompt_points_des \[1, 2\]"),
        ({"prompt_points_des": ["", "x"]}, "line 1: got counting without a description"),
        ({"prompt": None}, "line 1: got prompt None"),
    ],
)
def test_malformed_rows_are_named(tmp_path, change, said):
    with pytest.raises(ValueError, match=said):
        PointFile(lines(tmp_path / "t.jsonl", ROWS[0] | change))(ROWS[0]["prompt"])


def test_a_table_of_another_form_is_refused(tmp_path):
    said = "got columns prompt, dots; expected prompt, prompt_points, prompt_points_des or prompt_en"
    with pytest.raises(ValueError, match=said):
        PointFile(lines(tmp_path / "t.jsonl", {"prompt": "a", "dots": []}))


def test_rows_of_ones_own(tmp_path):
    row = {"prompt": "three dogs", "points": to_json(WANTED[:1])}
    assert PointFile(lines(tmp_path / "t.jsonl", row))("three dogs") == WANTED[:1]
    for name in ("t.csv", "t.parquet"):  # text in a cell, and null for a key that one of two points lacks
        table = pa.Table.from_pylist(
            [{**row, "points": [*row["points"], {"kind": "state", "description": "x"}]}]
        )
        if name == "t.parquet":
            pq.write_table(table, tmp_path / name)
        else:
            shown = json.dumps(row["points"]).replace('"', '""')
            (tmp_path / name).write_text(f'prompt,points\nthree dogs,"{shown}"\n')
        assert PointFile(tmp_path / name)("three dogs")[0] == WANTED[0]
    row["points"][0]["kind"] = "weather"
    with pytest.raises(ValueError, match="line 1: got key point 'weather'"):
        PointFile(lines(tmp_path / "t.jsonl", row))("three dogs")


def test_rows_of_one_prompt_are_joined(tmp_path):
    more = ROWS[0] | {"prompt_points": ["Size", "Counting"], "prompt_points_des": ["big dogs", "three dogs"]}
    points = PointFile(lines(tmp_path / "t.jsonl", ROWS[0], more))
    assert points("three dogs and no cat") == [*WANTED, KeyPoint("size", "big dogs")]


def test_test_points_of_unigenbench(tmp_path):
    asked = {"Testpoints": ["Attribute - Quantity", "Style"], "Testpoint Description": ["two", ""]}
    row = {"index": 0, "prompt_en": "p", "sub_dims_en": json.dumps(asked)}
    points = PointFile(lines(tmp_path / "t.jsonl", row, row | {"prompt_en": "q", "sub_dims_en": "{}"}))
    assert points("p") == [KeyPoint("counting", "two"), KeyPoint("artistic_style", "p")]
    with pytest.raises(ValueError, match=r"line 2: got sub_dims_en '{}'"):
        points("q")


def test_metadata_of_geneval(tmp_path):
    def spec(prompt, *include):
        return {"tag": "position", "prompt": prompt, "include": list(include)}

    dog, cat = {"class": "dog", "count": 2, "color": "red"}, {"class": "cat", "count": 1, "color": "blue"}
    placed = {"class": "cat", "count": 1, "position": ["left of", 0]}
    rows = [spec("a", dog), spec("b", dog, cat), spec("c", {"class": "dog", "count": 1}, placed)]
    points = PointFile(lines(tmp_path / "t.jsonl", *rows, spec("d", {"class": "dog", "count": 1})))
    two = KeyPoint("counting", "there are exactly two dogs")
    assert points("a") == [two, KeyPoint("material", "the dog is red")]
    assert [point.kind for point in points("b")] == ["counting", *["cross_entity_binding"] * 2]
    assert points("c") == [KeyPoint("entity_layout", "the cat is left of the dog")]
    assert points("d") == []


@published
def test_the_published_metadata_says_the_same_in_either_reading():
    """What `keypoint_recall` expects of rules, these points have, no more and no less."""
    points = PointFile(GENEVAL)
    found = keypoint_recall.geneval(read_specs(GENEVAL).values(), points)
    assert {name: (part.recall, part.precision) for name, part in found.items()} == dict.fromkeys(
        ("counting", "colour", "position"), (1.0, 1.0)
    )
    assert sum(part.expected for part in found.values()) == 474


@published
def test_every_published_test_point_is_read():
    points, rows = PointFile(UNIGENBENCH), 0
    for parity in (0, 1):
        for prompt, asked in keypoint_recall.test_points(UNIGENBENCH, parity):
            rows += 1
            found = {point.description for point in points(prompt)}
            assert found == {text.strip() or prompt for _, text in asked}
    assert rows == 600
