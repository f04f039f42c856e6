"""Files of prompts and rewrites: every format, and a run that is killed in the middle."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2ialign.evaluation import manifest
from t2ialign.rewriting.files import journal_of, read, resume, rewrite_file, write
from t2ialign.rewriting.rules import Rules

PROMPTS = ["three dogs", "a cat, no hat", 'a sign "Go"', "a red car", "a bed"]


class Dying:
    """Rewrites some prompts, then the power fails."""

    def __init__(self, after):
        self.left, self.rules, self.asked = after, Rules("light"), []

    def write(self, prompts, *, attempt):
        if self.left < len(prompts):
            raise KeyboardInterrupt
        self.left -= len(prompts)
        self.asked += prompts
        return self.rules.write(prompts, attempt=attempt)


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS))
    return file


def test_read_parquet_and_what_read_prompts_reads(tmp_path, source):
    table = tmp_path / "p.parquet"
    pq.write_table(pa.table({"n": range(6), "Caption": [*PROMPTS, "  "]}), table)
    assert read(table) == read(source) == PROMPTS
    assert read("just a prompt") == ["just a prompt"]
    pq.write_table(pa.table({"n": [1]}), table)
    with pytest.raises(ValueError, match="got columns n; expected one of prompt, caption, text"):
        read(table)
    pq.write_table(pa.table({"text": [None, "a"]}), table)
    with pytest.raises(ValueError, match="row 0: got None for a prompt"):
        read(table)
    pq.write_table(pa.table({"text": [" "]}), table)
    with pytest.raises(ValueError, match="got no prompts"):
        read(table)
    with pytest.raises(ValueError, match="which does not exist"):
        read(tmp_path / "absent.parquet")


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".txt"])
def test_every_ending_holds_the_rows_in_order(tmp_path, source, ending):
    output = tmp_path / "deep" / f"out{ending}"
    rows = rewrite_file(Rules("light"), source, output, name="rules", seed=3, batch=2)
    assert [row["prompt"] for row in rows] == PROMPTS
    assert all(row["used"] == "rewrite" and row["rewriter"] == "rules" and row["seed"] == 3 for row in rows)
    if ending == ".jsonl":
        assert manifest.journal(output) == rows
    elif ending == ".parquet":
        assert pq.read_table(output).to_pylist() == rows
    else:
        assert output.read_text().splitlines() == [row["rewrite"] for row in rows]


def test_a_killed_run_goes_on_where_it_stopped(tmp_path, source):
    output = tmp_path / "out.jsonl"
    first = Dying(after=4)
    with pytest.raises(KeyboardInterrupt):
        rewrite_file(first, source, output, name="rules", seed=0, batch=2)
    assert not output.exists() and len(manifest.journal(journal_of(output))) == 4
    with journal_of(output).open("a") as stream:
        stream.write('{"prompt": "a b')  # torn by the kill
    second = Dying(after=9)
    rows = rewrite_file(second, source, output, name="rules", seed=0, batch=2)
    assert second.asked == PROMPTS[4:]
    whole = rewrite_file(Rules("light"), source, tmp_path / "whole.jsonl", name="rules", seed=0)
    assert rows == whole == manifest.journal(output) == manifest.journal(journal_of(output))
    third = Dying(after=0)
    assert rewrite_file(third, source, output, name="rules", seed=0) == whole and not third.asked


def test_the_journal_of_another_run_is_refused(tmp_path, source):
    output = tmp_path / "out.jsonl"
    rewrite_file(Rules("light"), source, output, name="rules", seed=0)
    with pytest.raises(ValueError, match=r"got seed 0 in .* line 1; expected 1"):
        rewrite_file(Rules("light"), source, output, name="rules", seed=1)
    with pytest.raises(ValueError, match="got rewriter 'rules'"):
        resume(journal_of(output), PROMPTS, name="model", seed=0)
    with pytest.raises(ValueError, match="line 2; expected 'other'"):
        resume(journal_of(output), [PROMPTS[0], "other"], name="rules", seed=0)
    with pytest.raises(ValueError, match="line 5; expected None"):
        resume(journal_of(output), PROMPTS[:4], name="rules", seed=0)


def test_text_has_one_line_a_prompt_and_the_prompt_where_the_rewrite_failed(tmp_path):
    rows = [
        {"prompt": "a", "rewrite": "b\nc", "used": "rewrite"},
        {"prompt": "d\ne", "rewrite": "x", "used": "original"},
    ]
    write(tmp_path / "out.txt", rows)
    assert (tmp_path / "out.txt").read_text() == "b c\nd e\n"


def test_losses_are_columns_of_parquet(tmp_path):
    source = tmp_path / "p.jsonl"
    source.write_text(json.dumps({"prompt": "three cats"}))

    class Loser:
        def write(self, prompts, *, attempt):
            return ["<answer>cats</answer>"] * len(prompts)

    (row,) = rewrite_file(Loser(), source, tmp_path / "o.parquet", name="n", seed=0, tries=1)
    assert row["lost"] == [{"what": "number", "evidence": "three cats"}] and row["used"] == "original"
    assert pq.read_table(tmp_path / "o.parquet").to_pylist() == [row]


def test_other_endings_fail_before_anything_is_written(tmp_path, source):
    with pytest.raises(ValueError, match=r"got output .*out.csv; expected one of .txt, .jsonl, .parquet"):
        rewrite_file(Dying(0), source, tmp_path / "new" / "out.csv", name="n", seed=0)
    assert not (tmp_path / "new").exists()
