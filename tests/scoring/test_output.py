"""The table of scores: each format gives back what went in, parts join to the whole, sums are sums."""

import math
from pathlib import Path

import pyarrow as pa
import pytest

from t2ialign.scoring import output

ODD = ["plain", 'with "quotes", commas', "two\nlines", "", "caf\u00e9", "123", "null", None]


def rows(count: int = 8, shard: int = 0) -> list[dict]:
    return [
        {
            **{"id": str(i), "shard": shard, "row": i, "file": f"{i}.png", "prompt": ODD[i % len(ODD)]},
            "scores": {} if i == 3 else {"red": i / 3, "a.b:c": -1e-9 * i},
            "error": 'bad, "really"\nbad' if i == 3 else None,
        }
        for i in range(count)
    ]


NAMES = ["red", "a.b:c"]


@pytest.mark.parametrize("suffix", output.SUFFIXES)
def test_every_format_gives_back_what_went_in(tmp_path, suffix):
    table = output.table(reversed(rows()), NAMES)
    assert table["row"].to_pylist() == list(range(8)), "in the order of the source"
    assert table.schema.names == ["file", "prompt", "shard", "row", "red", "a.b:c", "error"]
    output.write(table, tmp_path / f"x{suffix}")
    assert output.read(tmp_path / f"x{suffix}").equals(table)
    assert [path.name for path in tmp_path.iterdir()] == [f"x{suffix}"], "no scratch file is left"


def test_chunks_do_not_show(monkeypatch):
    whole = output.table(rows(), NAMES)
    monkeypatch.setattr(output, "CHUNK", 3)
    assert output.table(rows(), NAMES).equals(whole)


@pytest.mark.parametrize("suffix", output.SUFFIXES)
def test_a_table_of_no_rows(tmp_path, suffix):
    table = output.table([], NAMES)
    output.write(table, tmp_path / f"x{suffix}")
    assert len(output.read(tmp_path / f"x{suffix}")) == 0
    assert output.summarise(table)["red"].count == 0


def test_the_summary_by_hand():
    values = [1.0, 2.0, 4.0, None]
    table = output.table(
        [
            {**row, "scores": {"red": value} if value is not None else {}, "error": None if value else "x"}
            for row, value in zip(rows(4), values, strict=True)
        ],
        ["red"],
    )
    red = output.summarise(table)["red"]
    assert (red.count, red.low, red.high, red.errors) == (3, 1.0, 4.0, 1)
    assert red.mean == pytest.approx(7 / 3)
    assert red.sd == pytest.approx(math.sqrt(((4 / 3) ** 2 + (1 / 3) ** 2 + (5 / 3) ** 2) / 2))
    assert output.broken(table) == 1


def test_one_score_has_no_standard_deviation():
    assert math.isnan(output.summarise(output.table(rows(1), NAMES))["red"].sd)


def parts(tmp_path: Path, suffix: str = ".csv") -> list[Path]:
    """The outputs of two processes that had every other row."""
    paths = []
    for rank in range(2):
        path = output.rank_path(tmp_path / f"s{suffix}", rank, 2)
        output.write(output.table(rows()[rank::2], NAMES), path)
        paths.append(path)
    return paths


@pytest.mark.parametrize("suffix", output.SUFFIXES)
def test_parts_join_to_the_whole(tmp_path, suffix):
    paths = parts(tmp_path, suffix)
    assert [path.name for path in paths] == [f"s.rank0-of-2{suffix}", f"s.rank1-of-2{suffix}"]
    assert output.merge(paths).equals(output.table(rows(), NAMES))
    assert output.rank_path(tmp_path / "s.csv", 0, 1) == tmp_path / "s.csv"


def test_parts_that_do_not_fit_are_refused(tmp_path):
    first, second = parts(tmp_path)
    with pytest.raises(ValueError, match="got 1 of 2 files, without rank 1; expected all"):
        output.merge([first])
    again = tmp_path / "again.csv"
    first.rename(again)
    with pytest.raises(ValueError, match="expected the files of one run"):
        output.merge([again, second])
    second.rename(other := tmp_path / "other.csv")
    assert len(output.merge([again, other])) == 8
    with pytest.raises(ValueError, match="got row 0 of shard 0 more than once"):
        output.merge([again, again])
    output.write(output.table(rows(), ["red"]), tmp_path / "less.csv")
    with pytest.raises(ValueError, match=r"got columns .* in .*less.csv and .* expected the same"):
        output.merge([again, tmp_path / "less.csv"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.txt", b"", "expected an ending of .parquet, .csv, .jsonl"),
        ("none.csv", None, "which does not exist"),
        ("x.csv", b"a,b\n1,2\n", "got columns a, b in"),
        ("x.jsonl", b'{"a": 1}\n', "got columns a in"),
        ("x.jsonl", b"{", "which does not read"),
        ("x.parquet", b"PAR1", "which does not read"),
    ],
)
def test_what_is_no_table_of_scores(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as caught:
        output.read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_reward_may_not_be_called_like_a_column():
    with pytest.raises(ValueError, match="got a reward called error"):
        output.schema(["red", "error"])


def test_file_names_that_are_no_text_are_written_escaped(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    table = output.table([{**rows(1)[0], "file": name}], NAMES)
    output.write(table, tmp_path / "x.parquet")
    assert output.read(tmp_path / "x.parquet")["file"].to_pylist() == ["caf\\udce9.png"]


def test_columns_are_typed_so_that_empty_ones_join(tmp_path):
    bad = [{**row, "scores": {}, "error": "x", "prompt": None} for row in rows(2, shard=1)]
    output.write(output.table(bad, NAMES), tmp_path / "bad.jsonl")
    output.write(output.table(rows(2), NAMES), tmp_path / "good.jsonl")
    whole = output.merge([tmp_path / "bad.jsonl", tmp_path / "good.jsonl"])
    assert whole.schema.field("red").type == pa.float64()
    assert [row["shard"] for row in whole.to_pylist()] == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *((0.27134, "0.2713"), (-21.5, "-21.5000"), (0.0, "0.0000"), (1.234e-5, "1.23e-05")),
        *((-2.5e8, "-2.5e+08"), (math.nan, "-"), (None, "-")),
    ],
)
def test_numbers_are_shown_with_the_digits_they_have(value, shown):
    assert output.number(value) == shown


def test_a_score_s_table_takes_brackets_as_they_are(capsys):
    output.show({"[/x]": output.Summary(1, 1.0, 0.0, 1.0, 1.0, 0)}, "rows in [/a].csv")
    assert "[/x]" in (shown := capsys.readouterr().out) and "[/a].csv" in shown
