"""The journal: whatever kills a run, the next one neither loses nor doubles a row."""

import json
from pathlib import Path

import pytest

from t2ialign.scoring.items import Item
from t2ialign.scoring.journal import Journal, answering, path_of

OF = {"source": "x", "rewards": {"red": {}}}
ITEMS = [Item(0, row, f"{row}.png", f"p{row}", None) for row in range(6)]


def scored(item: Item, value: float = 0.5) -> dict:
    return {
        **{
            "id": item.identity,
            "shard": item.shard,
            "row": item.row,
            "file": item.file,
            "prompt": item.prompt,
        },
        **{"scores": {"red": value}, "error": None},
    }


def failed(item: Item) -> dict:
    return {**scored(item), "scores": {}, "error": "broken"}


def journal(tmp_path: Path, resume: bool = True, of: dict = OF) -> Journal:
    return Journal(tmp_path / "s.csv.journal.jsonl", of, resume=resume)


def names(rows) -> list[str]:
    return [row["file"] for row in rows]


def run(tmp_path: Path, items: list[Item], results) -> list[dict]:
    """One whole run: what is to do gets what `results` makes of it."""
    book = journal(tmp_path)
    book.add([results(item) for item in book.todo(items)])
    book.push()
    rows = list(book.rows())
    book.close()
    return rows


def test_it_lies_beside_the_output():
    assert path_of(Path("a/s.parquet")) == Path("a/s.parquet.journal.jsonl")


def test_a_new_run_writes_its_rows_as_they_come(tmp_path):
    assert run(tmp_path, ITEMS, scored) == [scored(item) for item in ITEMS]


def test_a_run_goes_on_and_tries_errors_again(tmp_path):
    run(tmp_path, ITEMS[:4], lambda item: failed(item) if item.row == 2 else scored(item))
    book = journal(tmp_path)
    todo = list(book.todo(ITEMS))
    assert names(map(scored, todo)) == ["2.png", "4.png", "5.png"]
    book.add([scored(item, 0.9) for item in todo])
    book.push()
    rows = {row["file"]: row["scores"]["red"] for row in book.rows()}
    assert rows == {"0.png": 0.5, "1.png": 0.5, "2.png": 0.9, "3.png": 0.5, "4.png": 0.9, "5.png": 0.9}
    assert len(list(book.rows())) == 6
    book.close()


def test_rows_move_with_the_source_and_those_that_are_gone_are_left_out(tmp_path):
    run(tmp_path, ITEMS[:3], scored)
    moved = [Item(0, 9, "2.png", "p2", None), Item(0, 0, "0.png", "p0", None)]
    rows = run(tmp_path, moved, scored)
    assert sorted((row["file"], row["row"]) for row in rows) == [("0.png", 0), ("2.png", 9)]


@pytest.mark.parametrize("keep", [1, 20, -1, 0])
def test_a_torn_end_is_cut_off_and_scored_again(tmp_path, keep):
    run(tmp_path, ITEMS[:3], scored)
    path = tmp_path / "s.csv.journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + (lines[-1][:keep] if keep else b""))
    again = []
    rows = run(tmp_path, ITEMS[:3], lambda item: again.append(item.row) or scored(item))
    assert again == [2] and names(rows) == ["0.png", "1.png", "2.png"]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_a_torn_head_starts_anew(tmp_path):
    path = tmp_path / "s.csv.journal.jsonl"
    path.write_bytes(b'{"of": {"sou')
    assert names(run(tmp_path, ITEMS[:1], scored)) == ["0.png"]
    assert json.loads(path.read_text().splitlines()[0]) == {"of": OF}


def test_a_journal_is_not_overwritten_or_mixed(tmp_path):
    run(tmp_path, ITEMS, scored)
    with pytest.raises(ValueError, match=r"from an earlier run; expected none; .*resume=True"):
        journal(tmp_path, resume=False)
    with pytest.raises(
        ValueError, match=r"got rewards \{'blue': \{\}\} for .* holds scores with rewards \{'red'"
    ):
        journal(tmp_path, of={**OF, "rewards": {"blue": {}}})
    (tmp_path / "s.csv.journal.jsonl").write_text('{"of": {"source": "x", "rewards": {"red": {}}}}\n[1]\n')
    with pytest.raises(ValueError, match=r"got '\[1\]\\n' in .* line 2; expected a row of a journal"):
        journal(tmp_path)


def test_closing_pushes_what_is_held_as_after_a_ctrl_c(tmp_path):
    book = journal(tmp_path)
    book.add([scored(ITEMS[0])])
    assert not (tmp_path / "s.csv.journal.jsonl").read_text(), "held for now"
    book.close()
    assert len((tmp_path / "s.csv.journal.jsonl").read_text().splitlines()) == 2


def test_a_full_disk_leaves_whole_lines_only(tmp_path, monkeypatch):
    book = journal(tmp_path)
    book.add([scored(ITEMS[0])])
    book.push()
    book.add([scored(item) for item in ITEMS[1:]])
    real = book.file

    class Full:
        def write(self, data):
            real.write(bytes(data[:50]))
            raise OSError(28, "No space left on device")

        def __getattr__(self, name):
            return getattr(real, name)

    book.file = Full()
    with pytest.raises(OSError, match="No space"):
        book.push()
    book.file = real
    book.close()
    again = journal(tmp_path)
    assert len(again.done) == 6, "the rows that were held came after all, once there was room"
    again.close()


def test_names_that_are_no_text_come_back_as_they_were(tmp_path):
    item = Item(0, 0, b"caf\xe9.png".decode("utf-8", "surrogateescape"), "p", None)
    assert names(run(tmp_path, [item], scored)) == [item.file]
    assert names(run(tmp_path, [item], failed)) == [item.file]


def test_a_run_that_scores_nothing_leaves_nothing(tmp_path):
    book = journal(tmp_path)
    book.close()
    assert not list(tmp_path.iterdir())
    other = journal(tmp_path, resume=False, of={"source": "y"})
    other.push()
    other.close()
    with pytest.raises(ValueError, match="holds scores with source 'y'"):
        journal(tmp_path)


def test_a_caller_says_what_is_done(tmp_path):
    path = tmp_path / "s.csv.journal.jsonl"
    for wanted in ([ITEMS[0], ITEMS[1]], [ITEMS[1]]):
        book = Journal(path, OF, resume=True, done=lambda row: row["scores"]["red"] > 0)
        todo = list(book.todo(ITEMS[:2]))
        assert todo == wanted
        book.add(scored(item, value=float(item.row == 0 or len(todo) == 1)) for item in todo)
        book.push()
        assert [row["scores"]["red"] for row in book.rows()] == ([1, 0] if len(todo) == 2 else [1, 1])
        book.close()
    last = Journal(path, OF, resume=True, done=lambda row: row["scores"]["red"] > 0)
    assert not list(last.todo(ITEMS[:2])) and len(list(last.rows())) == 2
    last.close()


def test_how_a_model_is_reached_is_no_part_of_what_it_says():
    options = {"tokens": 5, "timeout": 3.0, "key_env": "KEY", "dtype": "bfloat16", "workers": 2, "batch": 4}
    assert answering(options) == {"dtype": "bfloat16", "tokens": 5}


@pytest.mark.parametrize(
    "wrong",
    [
        {"error": 3},
        {"erros": None, "error": ...},
        {"scores": [1.0]},
        {"scores": {"red": "1"}},
        {"shard": "0"},
        {"row": None},
        {"file": ...},
        {"prompt": 7},
        {"id": 4},
    ],
)
def test_a_row_that_no_run_wrote_is_one_line_and_not_a_score(tmp_path, wrong):
    run(tmp_path, ITEMS, scored)
    path = tmp_path / "s.csv.journal.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines()
    row = {**json.loads(lines[2]), **wrong}
    lines[2] = json.dumps({key: value for key, value in row.items() if value is not ...})
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"line 3; expected a row of a journal; delete the file"):
        journal(tmp_path)
