"""Files of prompts and rewrites: every format, runs that stop in the middle, and prompts that are refused."""

import pyarrow.parquet as pq
import pytest

from t2ialign.io import jsonl
from t2ialign.rewriting.files import from_row, journal_of, write
from t2ialign.rewriting.job import Job
from t2ialign.rewriting.load import choose
from t2ialign.rewriting.rewriter import HARMLESS, report
from tests.rewards.chat_server import ChatServer, says

PROMPTS = ["three dogs", "a cat, no hat", 'a sign "Go"', "a red car", "a bed"]


@pytest.fixture
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def ruled(prompts, journal, **settings):
    """The rows of a run of the rules."""
    return Job(choose("rules", **settings)).rows(prompts, [journal])[0]


def served(server, prompts, journal):
    """The rows of a run on a server, which is asked one thing at a time."""
    choice = choose("m", url=server.url, preset="trained", workers=1, tries=1)
    return Job(choice).rows(prompts, [journal])[0]


def prompt_of(request):
    return request["messages"][-1]["content"]


def foggy(request):
    return 200, says(f"<answer>{prompt_of(request)} in fog</answer>"), {}


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "prompts.txt"
    file.write_text("\n".join(PROMPTS))
    return file


@pytest.mark.parametrize("ending", [".jsonl", ".parquet", ".txt"])
def test_every_ending_holds_the_rows_in_order(tmp_path, ending):
    output = tmp_path / f"out{ending}"
    rows = ruled(PROMPTS, journal_of(output), strength="light", seed=3)
    write(output, rows)
    name = "rules intensity=light tries=2 longest=80"
    assert [row["prompt"] for row in rows] == PROMPTS
    assert all(row["used"] == "rewrite" and row["rewriter"] == name and row["seed"] == 3 for row in rows)
    if ending == ".jsonl":
        assert jsonl.read(output) == rows
    elif ending == ".parquet":
        assert pq.read_table(output).to_pylist() == rows
    else:
        assert output.read_text().splitlines() == [row["rewrite"] for row in rows]


def test_a_run_whose_server_went_away_goes_on_where_it_stopped(tmp_path, no_proxy):
    journal, heard = tmp_path / "j.jsonl", []

    def leaving(request):
        """Without credit from the second time on that it hears of a car."""
        heard.append(prompt_of(request))
        broke = heard[-1] == PROMPTS[3] or heard.count(PROMPTS[3]) > 1
        return (402, b"no credit", {}) if broke else foggy(request)

    with ChatServer(leaving) as server, pytest.raises(ValueError, match=r"got status 402 \(no credit\)"):
        served(server, PROMPTS, journal)
    assert heard[-2:] == [PROMPTS[3], HARMLESS]
    assert [row["prompt"] for row in jsonl.read(journal)] == PROMPTS[:3]
    with journal.open("a") as stream:
        stream.write('{"prompt": "a b')  # as a kill would leave it
    with ChatServer(foggy) as server:
        rows = served(server, PROMPTS, journal)
        assert [prompt_of(request) for request in server.requests] == PROMPTS[3:]
        assert rows == served(server, PROMPTS, tmp_path / "whole.jsonl") == jsonl.read(journal)
        count = len(server.requests)
        assert served(server, PROMPTS, journal) == rows and len(server.requests) == count


def test_one_refused_prompt_is_a_named_fall_back_and_costs_no_other_its_answer(tmp_path, no_proxy):
    prompts, journal = [f"cat {place}" for place in range(10)], tmp_path / "j.jsonl"

    def picky(request):
        return (400, b"filtered; see policy", {}) if prompt_of(request) == "cat 7" else foggy(request)

    with ChatServer(picky) as server:
        rows = served(server, prompts, journal)
        assert [prompt_of(request) for request in server.requests].count("cat 7") == 2
        count = len(server.requests)
        assert served(server, prompts, journal) == rows and len(server.requests) == count
    assert [row["prompt"] for row in rows] == prompts
    assert [row["prompt"] for row in rows if row["used"] != "rewrite"] == ["cat 7"]
    assert rows[7]["fallback"] == "refused" and rows[7]["reason"].startswith("refused: status 400 (filtered")
    figures = report([from_row(row) for row in rows])
    assert figures["fallbacks"] == {"refused": 0.1} and figures["original"] == {"refused": 1}
    assert (figures["asked"], figures["rewritten"]) == (10, 0.9)


@pytest.mark.parametrize("longest", [80, 1])
def test_a_server_that_refuses_everything_stops_the_run(tmp_path, no_proxy, longest):
    with ChatServer(lambda request: (400, b"no such model", {})) as server:
        job = Job(choose("m", url=server.url, preset="trained", workers=1), longest=longest)
        with pytest.raises(ValueError, match=r"got status 400 \(no such model\)"):
            job.rows(["dogs", "cars"] * 5, [tmp_path / "j.jsonl"])
        assert [prompt_of(request) for request in server.requests[-2:]] == ["dogs", HARMLESS]
    assert not (tmp_path / "j.jsonl").exists()


def test_the_journal_of_another_run_is_refused(tmp_path):
    journal = tmp_path / "j.jsonl"
    ruled(PROMPTS, journal)
    with pytest.raises(ValueError, match=r"got seed 0 in .* line 1; expected 1"):
        ruled(PROMPTS, journal, seed=1)
    with pytest.raises(ValueError, match="got rewriter 'rules intensity=medium"):
        ruled(PROMPTS, journal, strength="full")
    with pytest.raises(ValueError, match="line 2; expected 'other'"):
        ruled([PROMPTS[0], "other"], journal)
    with pytest.raises(ValueError, match="line 5; expected None"):
        ruled(PROMPTS[:4], journal)


def test_text_has_one_line_a_prompt_and_the_prompt_where_the_rewrite_failed(tmp_path):
    rows = [
        {"prompt": "a", "rewrite": "b\nc", "used": "rewrite"},
        {"prompt": "d\ne", "rewrite": "x", "used": "original"},
    ]
    write(tmp_path / "out.txt", rows)
    assert (tmp_path / "out.txt").read_text() == "b c\nd e\n"


def test_losses_are_columns_of_parquet(tmp_path, no_proxy):
    with ChatServer(lambda request: (200, says("<answer>cats</answer>"), {})) as server:
        (row,) = served(server, ["three cats"], tmp_path / "j.jsonl")
    write(tmp_path / "o.parquet", [row])
    assert row["lost"] == [{"what": "number", "evidence": "three cats"}] and row["used"] == "original"
    assert pq.read_table(tmp_path / "o.parquet").to_pylist() == [row]


def test_other_endings_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ValueError, match=r"got output .*out.csv; expected one of .txt, .jsonl, .parquet"):
        write(tmp_path / "out.csv", [])
    assert not list(tmp_path.iterdir())
