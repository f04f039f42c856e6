"""Journals survive a kill at any byte, and a bad manifest is named by line."""

import json
from pathlib import Path

import pytest

from t2ialign.io import atomic, jsonl, manifest

ROWS = [{"file": f"{i}.png", "prompt": "a caf\u00e9", "seed": i, "steps": 20} for i in range(3)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    file = tmp_path / manifest.NAME
    jsonl.append(file, ROWS)
    return file


def test_rows_come_back_with_paths_beside_the_manifest(file: Path) -> None:
    for source in (file, file.parent):
        rows = manifest.read(source)
        assert [row.path for row in rows] == [file.parent / f"{i}.png" for i in range(3)]
        assert (rows[1].prompt, rows[1].seed, rows[1].settings) == ("a caf\u00e9", 1, {"steps": 20})


def test_every_torn_tail_leaves_the_whole_rows(file: Path) -> None:
    data = file.read_bytes()
    second = data.index(b"\n", data.index(b"\n") + 1) + 1
    for end in range(second, len(data)):
        file.write_bytes(data[:end])
        whole = end >= len(data) - 1  # only the last newline is missing: the row itself is all there
        assert jsonl.read(file) == ROWS[: 3 if whole else 2]  # even if cut inside a letter


def test_a_bad_line_in_the_middle_is_named(file: Path) -> None:
    lines = file.read_text().splitlines()
    file.write_text("\n".join([lines[0], lines[1][:-3], lines[2]]) + "\n")
    with pytest.raises(ValueError, match=r"manifest.jsonl line 2; expected a JSON object"):
        jsonl.read(file)
    file.write_text("[1, 2]\n")
    with pytest.raises(ValueError, match="line 1"):
        jsonl.read(file)


def test_rewrite_replaces_all_or_nothing(file: Path) -> None:
    before = file.read_bytes()
    with pytest.raises(TypeError):
        jsonl.rewrite(file, [*ROWS, {"file": object()}])  # cannot be written
    assert file.read_bytes() == before
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    jsonl.rewrite(file, ROWS[:1])
    assert jsonl.read(file) == ROWS[:1]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"path": "a.png", "prompt": "x"}, "got path, prompt in .* line 1; expected file and prompt"),
        ({"file": "a.png", "prompt": None}, "expected file and prompt as text"),
        ({"file": "a.png", "prompt": " "}, "expected file and prompt as text"),
        ({"file": "a.png", "prompt": "x", "seed": "7"}, "got seed '7'"),
    ],
)
def test_rows_that_lack_something_are_errors(tmp_path: Path, row: dict[str, object], message: str) -> None:
    (tmp_path / manifest.NAME).write_text(json.dumps(row) + "\n")
    with pytest.raises(ValueError, match=message):
        manifest.read(tmp_path)


def test_missing_and_empty_manifests_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="write one with t2ialign sample"):
        manifest.read(tmp_path)
    (tmp_path / manifest.NAME).write_text("\n")
    with pytest.raises(ValueError, match="got no rows"):
        manifest.read(tmp_path)


def test_json_files_hold_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        atomic.write_json(tmp_path / "x.json", {"mean": float("nan")})
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize("content", [b"", b"[1]", b"3", b"{", b"\xff\x00"])
def test_damaged_json_is_one_line_that_names_the_file(tmp_path, content):
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.json, which is damaged .*restore it from a copy") as error:
        atomic.read_json(tmp_path / "a.json")
    assert "\n" not in str(error.value)
    atomic.write_json(tmp_path / "a.json", {"a": 1})
    assert atomic.read_json(tmp_path / "a.json") == {"a": 1}


@pytest.mark.parametrize("name", ["../a.png", "/etc/a.png", "link.png", "deep/a.png"])
def test_a_folder_names_images_within_it_alone_and_a_file_of_the_users_any(tmp_path: Path, name: str) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "link.png").symlink_to(tmp_path / "a.png")
    (run / "deep").symlink_to(tmp_path)
    jsonl.append(run / manifest.NAME, [{"file": name, "prompt": "x"}])
    with pytest.raises(ValueError, match=r"expected a (path|file) within"):
        manifest.read(run)
    assert manifest.read(run / manifest.NAME)[0].path == run / name


def test_a_folder_may_itself_be_a_link(file: Path) -> None:
    link = file.parent.parent / f"{file.parent.name}-link"
    link.symlink_to(file.parent)
    assert len(manifest.read(link)) == len(ROWS)


def test_names_that_are_no_text_are_written_and_come_back(tmp_path: Path) -> None:
    """A file's name may be any bytes, which Python holds as lone surrogates."""
    row = {"file": "a\udcff\udc80.png", "prompt": "\ud800 caf\u00e9"}
    jsonl.append(tmp_path / "a.jsonl", [row])
    jsonl.rewrite(tmp_path / "b.jsonl", [row])
    atomic.write_json(tmp_path / "c.json", row)
    assert jsonl.read(tmp_path / "a.jsonl") == jsonl.read(tmp_path / "b.jsonl") == [row]
    assert atomic.read_json(tmp_path / "c.json") == row
