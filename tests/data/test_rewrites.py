"""Rows that a rewriter learns from: columns under their names and others', key points, and the errors."""

import json

import pytest

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
    found = read_wishes(
        lines(tmp_path / "a.jsonl", {"prompt": "two dogs", "points": points}, {"prompt": "a cat"})
    )
    assert found == [Wish("two dogs", points), Wish("a cat", None)]


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
