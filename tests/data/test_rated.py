"""Liked and disliked images from every layout: tables, folders, pairs."""

import json
from pathlib import Path

import pytest
from PIL import Image

from t2ialign.data.rated import RatedRecord, read_rated
from t2ialign.data.skipped import Skipped


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name in ("a", "b", "c"):
        Image.new("RGB", (8, 8), (ord(name), 0, 0)).save(tmp_path / f"{name}.png")
    return tmp_path


def shown(records) -> list[tuple[str, str, bool]]:
    return [(record.prompt, Path(record.image).name, record.liked) for record in records]


EXPECTED = [("one", "a.png", True), ("two", "b.png", False), ("three", "c.png", True)]


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_tables(files, ending):
    rows = [{"prompt": p, "image": i, "liked": liked, "other": 1} for p, i, liked in EXPECTED]
    path = files / f"votes.{ending}"
    if ending == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.Table.from_pylist(rows), path)
    elif ending in ("csv", "tsv"):
        between = "," if ending == "csv" else "\t"
        lines = [between.join(("Prompt", "IMAGE", "liked"))]
        path.write_text("\n".join([*lines, *(between.join((p, i, str(k))) for p, i, k in EXPECTED)]))
    else:
        path.write_text(json.dumps(rows) if ending == "json" else "\n".join(map(json.dumps, rows)))
    assert shown(read_rated(str(path))) == EXPECTED
    assert shown(read_rated(str(path), limit=2)) == EXPECTED[:2]


def test_without_the_column_all_are_liked(files):
    (files / "t.jsonl").write_text('{"caption": "x", "file_name": "a.png"}\n')
    assert shown(read_rated(str(files / "t.jsonl"))) == [("x", "a.png", True)]


def test_a_folder_of_images_with_captions(files):
    (files / "a.txt").write_text("beside")
    (files / "captions.jsonl").write_text(
        '{"file_name": "b.png", "text": "listed"}\n{"file_name": "c.png", "text": "too"}\n'
    )
    assert shown(read_rated(str(files))) == [
        ("beside", "a.png", True),
        ("listed", "b.png", True),
        ("too", "c.png", True),
    ]


def test_folders_of_liked_and_disliked(files):
    for side in ("Liked", "disliked"):
        (files / side).mkdir()
        (files / side / "a.png").write_bytes((files / "a.png").read_bytes())
        (files / side / "a.txt").write_text(side)
    assert shown(read_rated(str(files))) == [("Liked", "a.png", True), ("disliked", "a.png", False)]


def test_pairs_are_a_liked_and_a_disliked_image_each_and_ties_neither(files):
    rows = [
        {"prompt": "p", "jpg_0": "a.png", "jpg_1": "b.png", "label_0": 0, "label_1": 1},
        {"prompt": "q", "jpg_0": "a.png", "jpg_1": "c.png", "label_0": 0.5, "label_1": 0.5},
    ]
    (files / "pairs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert shown(read_rated(str(files / "pairs.jsonl"))) == [("p", "b.png", True), ("p", "a.png", False)]


@pytest.mark.parametrize(
    ("row", "wrong"),
    [
        ({"prompt": "p", "image": "a.png", "liked": "maybe"}, "got liked 'maybe'; expected true or false"),
        ({"prompt": "p", "image": "a.png", "liked": None}, "got liked None; expected true or false"),
        ({"prompt": "", "image": "a.png", "liked": 1}, "prompt"),
        ({"prompt": "p", "image": None, "liked": 1}, "got None"),
        ({"prompt": "p", "picture": "a.png"}, "expected prompt, image and liked"),
    ],
)
def test_a_row_that_cannot_be_used_is_an_error_or_left_out(files, row, wrong):
    good = {"prompt": "p", "image": "a.png", "liked": True}
    path = files / "votes.jsonl"
    path.write_text("\n".join(map(json.dumps, (row, good))))
    with pytest.raises(ValueError, match=wrong):
        list(read_rated(str(path)))
    skipped = Skipped(str(path))
    assert shown(read_rated(str(path), skipped=skipped)) == [("p", "a.png", True)]
    assert skipped.count == 1 and skipped.rows == 2
    path.write_text(json.dumps(row))
    with pytest.raises(ValueError, match="got no image"):
        list(read_rated(str(path), skipped=Skipped(str(path))))


def test_nothing_is_one_line(files, tmp_path):
    (files / "none.jsonl").write_text("")
    with pytest.raises(ValueError, match="got no rows"):
        read_rated(str(files / "none.jsonl"))
    with pytest.raises(ValueError, match="does not exist"):
        read_rated(str(files / "missing.csv"))


def test_what_a_cache_keeps():
    record = RatedRecord("p", b"", liked=False)
    assert record.images == {"": b""} and record.labels == {"liked": 0.0}
