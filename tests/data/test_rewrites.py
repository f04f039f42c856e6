"""Rows that a rewriter learns from: columns under their names and others', key points, and the errors."""

import csv
import json

import pytest

from rewards.keypoints.taxonomy import KeyPoint, from_json
from t2ialign.data.rewrites import Triple, Wish, read_triples, read_wishes


def lines(file, *rows):
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(file)


def test_rows_of_a_table_under_any_known_name(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    rows = [{"caption": " two dogs ", "cot": "a pair", "reprompt": "two dogs side by side", "id": 4}]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    wanted = [Triple("two dogs", "a pair", "two dogs side by side")]
    assert read_triples(str(tmp_path / "rows.parquet"), thought=True) == wanted
    assert read_triples(lines(tmp_path / "rows.jsonl", *rows), thought=True) == wanted
    assert read_triples(str(tmp_path / "rows.jsonl"), thought=False)[0].thought == ""


def test_key_points_come_along_where_there_are_some(tmp_path):
    points = [{"kind": "counting", "description": "there are two dogs"}]
    file = lines(tmp_path / "a.jsonl", {"prompt": "two dogs", "points": points}, {"prompt": "a cat"})
    assert read_wishes(file) == [
        Wish("two dogs", points, f"{file} line 1"),
        Wish("a cat", None, f"{file} line 2"),
    ]


def as_json(file, rows):
    file.write_text(json.dumps(rows))


def as_lines(file, rows):
    lines(file, *rows)


def as_parquet(file, rows):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), file)


def as_csv(file, rows):
    comma = "\t" if file.suffix == ".tsv" else ","
    with file.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["prompt", "points"], delimiter=comma)
        writer.writeheader()
        writer.writerows({**row, "points": json.dumps(row["points"])} for row in rows)


WRITERS = {".json": as_json, ".jsonl": as_lines, ".parquet": as_parquet, ".csv": as_csv, ".tsv": as_csv}


@pytest.mark.parametrize("ending", WRITERS)
def test_key_points_of_every_format(tmp_path, ending):
    two, tall = KeyPoint("counting", "there are two dogs", "two"), KeyPoint("size", "a dog is tall")
    plain = [{"kind": "counting", "description": "there are two dogs", "evidence": "two"}]
    plain += [{"kind": "size", "description": "a dog is tall"}]  # in parquet its evidence is null
    rows = [{"prompt": "two dogs", "points": plain}, {"prompt": "a cat", "points": None}]
    file = tmp_path / f"rows{ending}"
    WRITERS[ending](file, rows)
    first, second = read_wishes(str(file))
    assert from_json(first.points) == [two, tall] and second.points is None


def test_key_points_that_are_no_json_are_named(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,points\na cat,\ntwo dogs,two of them\n")
    with pytest.raises(ValueError, match=r"a.csv line 3: got 'two of them' for points; expected a list"):
        read_wishes(str(tmp_path / "a.csv"))
    (tmp_path / "a.csv").write_text("prompt,points\na cat,\n")
    assert read_wishes(str(tmp_path / "a.csv"))[0].points is None


def test_user_prompts_may_be_a_text_file_and_empty_ones_are_counted(tmp_path, caplog):
    (tmp_path / "p.txt").write_text("two dogs\n\na cat\n")
    wishes = read_wishes(str(tmp_path / "p.txt"))
    assert [(wish.prompt, wish.points) for wish in wishes] == [("two dogs", None), ("a cat", None)]
    file = lines(tmp_path / "p.jsonl", {"prompt": "two dogs"}, {"prompt": None}, {"prompt": "nan"})
    assert [wish.prompt for wish in read_wishes(file)] == ["two dogs"]
    assert "2 of 3 rows left out: 2 without a prompt (first: line 2: got prompt None" in caplog.text
    with pytest.raises(ValueError, match=r"no prompts in .* \(1 of 1 rows left out"):
        read_wishes(lines(tmp_path / "p.jsonl", {"prompt": " "}))


@pytest.mark.parametrize("value", [None, "", float("nan"), "nan"])
def test_no_cell_of_what_is_learned_may_be_empty(tmp_path, value):
    row = {"prompt": "a", "thought": "b", "rewrite": "c"}
    for name in row:
        with pytest.raises(ValueError, match=f"line 1: got .*{name}"):
            read_triples(lines(tmp_path / "rows.jsonl", row | {name: value}), thought=True)


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        ([{"prompt": "a", "thought": "b"}], "rename what stands for rewrite"),
        ([{"prompt": "a", "thought": "b", "rewrite": 3}], "line 1: got 3 for rewrite; expected text"),
        (
            [{"prompt": "a", "thought": "b", "rewrite": "c"}, {"prompt": "", "thought": "b", "rewrite": "c"}],
            "line 2",
        ),
        ([], "got no rows"),
    ],
)
def test_bad_rows_are_named(tmp_path, rows, says):
    with pytest.raises(ValueError, match=says):
        read_triples(lines(tmp_path / "rows.jsonl", *rows), thought=True)
