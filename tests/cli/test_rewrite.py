"""t2ialign rewrite end to end: files and terminal, rules, a real model, a real server, and a killed run."""

import json
import subprocess
import sys

import pyarrow.parquet as pq
import pytest

from t2ialign.cli import main as cli
from t2ialign.io import jsonl
from t2ialign.rewriting.files import journal_of
from t2ialign.rewriting.fit import budget_of
from t2ialign.rewriting.instructions import PRESETS
from t2ialign.rewriting.parse import LIMIT
from tests.rewards.chat_server import ChatServer, says
from tests.rewards.tiny_llm import build_llama
from tests.rewriting.pages import words_of

PROMPTS = ["a pair of red dogs", "a cat, no hat", 'a sign "Go"', "a red car", "word " * 81 + "end"]


@pytest.fixture
def no_proxy(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def source(tmp_path):
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps({"prompt": prompt}) + "\n" for prompt in PROMPTS))
    return file


def rewrite(*argv: object) -> int:
    return cli.main(["rewrite", *map(str, argv)])


def fails(capsys, *argv: object) -> str:
    capsys.readouterr()
    assert rewrite(*argv) == 2
    return capsys.readouterr().err.splitlines()[-1]


def test_help_needs_no_library():
    code = (
        "import sys\nfrom t2ialign.cli.main import main\n"
        "try:\n    main([sys.argv[1], '--help'])\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'diffusers', 'numpy', 'pyarrow', 'transformers', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "rewrite"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    words = " ".join(done.stdout.split())
    assert "your prompt is used as you wrote it, and the reason is reported" in words
    assert all(f" {name} " in words for name in (*PRESETS, "rules", "Qwen/Qwen2.5-0.5B-Instruct"))
    assert max(map(len, done.stdout.split("positional arguments:")[0].splitlines()[9:])) < 90


def test_rules_from_file_to_file_with_a_report(tmp_path, source, capsys):
    output = tmp_path / "deep" / "out.parquet"
    assert rewrite("--prompts", source, "--rewriter", "rules", "-o", output) == 0
    rows = pq.read_table(output).to_pylist()
    assert [row["prompt"] for row in rows] == PROMPTS
    assert rows[0]["rewrite"].startswith("two red dogs side by side, ") and "two" in rows[0]["thought"]
    assert [row["used"] for row in rows] == ["rewrite"] * 4 + ["original"]
    assert rows[4]["reason"] == "prompt left alone"
    figures = json.loads(output.with_suffix(".json").read_text())
    assert figures["rewriter"] == rows[0]["rewriter"] == "rules intensity=medium tries=2 longest=80"
    assert (figures["prompts"], figures["asked"], figures["rewritten"]) == (5, 4, 1.0)
    assert figures["fallbacks"] == {} and figures["original"] == {"prompt left alone": 1}
    shown = " ".join(capsys.readouterr().out.split())
    assert "4 of 5 prompts asked" in shown and "prompt kept: prompt left alone" in shown


def test_prompts_of_arguments_and_a_text_file_come_out_as_lines(tmp_path):
    (tmp_path / "more.txt").write_text("three cats\n")
    output = tmp_path / "out.txt"
    argv = ("a red car", "--prompts", tmp_path / "more.txt", "--rewriter", "rules", "--intensity", "light")
    assert rewrite(*argv, "-o", output) == 0
    assert output.read_text().splitlines() == [
        "a red car",
        "three cats side by side",
    ]


def test_rewrites_fit_the_window_of_the_toy_model(tmp_path, source):
    output = tmp_path / "out.jsonl"
    assert rewrite("--prompts", source, "--rewriter", "rules", "--fit", "toy", "-o", output) == 0
    rows, (tokenizer, limit) = jsonl.read(output), budget_of("toy")
    used = [row for row in rows if row["used"] == "rewrite"]
    assert used and all(len(tokenizer(row["rewrite"]).input_ids) <= limit for row in used)
    assert any(row["dropped"] for row in used)
    assert json.loads(output.with_suffix(".json").read_text())["shortened"] > 0


def test_a_model_s_fallbacks_are_in_the_report(tmp_path, source, capsys):
    folder = build_llama(tmp_path / "llama")
    output = tmp_path / "out.jsonl"
    argv = ("--prompts", source, "--rewriter", folder, "--option", "tokens=6", "--option", "batch=4")
    assert rewrite(*argv, "-o", output) == 0
    figures = json.loads(output.with_suffix(".json").read_text())
    assert figures["fallbacks"] == {LIMIT: 1.0} and figures["rewritten"] == 0  # random weights never end
    assert figures["tried_again"] == 1.0 and figures["original"][LIMIT] == 4
    assert f"fall-back: {LIMIT}" in (shown := capsys.readouterr().out) and "100.0 %" in shown
    assert all(row["used"] == "original" for row in jsonl.read(output))


def test_a_cut_run_goes_on_to_the_same_file(tmp_path, source, capsys, no_proxy):
    def answer(request):
        return 200, says(f"<answer>{request['messages'][-1]['content']} in fog</answer>"), {}

    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    with ChatServer(answer) as server:
        base = ("--prompts", source, "--rewriter", "m", "--url", server.url, "--preset", "trained")
        assert rewrite(*base, "-o", whole) == 0
        asked = len(server.requests)
        lines = journal_of(whole).read_text().splitlines(keepends=True)
        journal_of(cut).write_text("".join(lines[:3]) + lines[3][:20])
        assert "go on with it by --resume latest" in fails(capsys, *base, "-o", cut)
        assert "got rewriter" in fails(capsys, *base, "--tries", 3, "-o", cut, "--resume", "latest")
        assert "got seed 0" in fails(capsys, *base, "--seed", 1, "-o", cut, "--resume", "latest")
        assert len(server.requests) == asked == 4
        assert rewrite(*base, "-o", cut, "--resume", "latest") == 0
        assert [r["messages"][-1]["content"] for r in server.requests[asked:]] == ["a red car"]
    assert cut.read_bytes() == whole.read_bytes()
    assert cut.with_suffix(".json").read_bytes() == whole.with_suffix(".json").read_bytes()


def test_a_refused_prompt_is_kept_and_counted(tmp_path, source, capsys, no_proxy):
    def answer(request):
        text = request["messages"][-1]["content"]
        return (400, b"filtered", {}) if "red" in text else (200, says(f"<answer>{text} in fog</answer>"), {})

    output = tmp_path / "out.txt"
    with ChatServer(answer) as server:
        argv = ("--prompts", source, "--rewriter", "m", "--url", server.url, "--preset", "trained")
        assert rewrite(*argv, "--option", "workers=1", "-o", output) == 0
    kept = [line for line in output.read_text().splitlines() if "fog" not in line]
    assert kept == [PROMPTS[0], PROMPTS[3], PROMPTS[4]]
    figures = json.loads(output.with_suffix(".json").read_text())
    assert figures["original"] == {"refused": 2, "prompt left alone": 1}
    assert "fall-back: refused" in (shown := capsys.readouterr().out) and "50.0 %" in shown


def test_the_terminal_shows_thought_answer_and_what_is_used(capsys, tmp_path, no_proxy):
    def answer(request):
        first = request["temperature"] == 0
        return 200, says(f"<think>why</think><answer>{'dogs' if first else '3 dogs, big'}</answer>"), {}

    with ChatServer(answer) as server:
        base = ("three dogs", "--rewriter", "m", "--url", server.url)
        assert rewrite(*base) == 0
        shown = capsys.readouterr().out
        assert rewrite(*base, "--tries", 1, "--html", tmp_path / "page.html") == 0
        *kept, page = capsys.readouterr().out.splitlines()
    assert shown.splitlines() == [
        "prompt:   three dogs",
        "<think>why</think><answer>dogs</answer>",
        "again:    <think>why</think><answer>3 dogs, big</answer>",
        "rewrite:  3 dogs, big",
        "",
    ]
    assert kept[-2] == "original: three dogs (lost: number; number: three dogs)"
    assert page == f"prompts and rewrites side by side: {tmp_path / 'page.html'}"
    assert words_of(tmp_path / "page.html").endswith(
        "Prompt 1 ✗ the prompt is used as it was written: lost: number Prompt three dogs Thought why "
        "Rewrite, not used dogs ✗ number lost: three dogs"
    )


def test_a_page_beside_a_file_of_rewrites(tmp_path, source, capsys):
    argv = ("--prompts", source, "--rewriter", "rules", "-o", tmp_path / "out.txt")
    assert rewrite(*argv, "--html", tmp_path / "deep" / "page.html") == 0
    words = words_of(tmp_path / "deep" / "page.html")
    assert "4 of 5 prompts are replaced by a rewrite; the others are used as they were written." in words
    assert "rules intensity=medium tries=2 longest=80" in words and "✓ quote kept: Go" in words
    assert "prompts and rewrites side by side" in capsys.readouterr().out


def test_bad_combinations_are_one_line(tmp_path, source, capsys):
    rules = ("x", "--rewriter", "rules")
    assert "got no prompt" in fails(capsys, "--rewriter", "rules")
    assert "got --resume without --output" in fails(capsys, *rules, "--resume", "latest")
    assert "got preset for rules" in fails(capsys, *rules, "--preset", "general")
    assert "got tokens for rules" in fails(capsys, *rules, "--option", "tokens=3")
    assert "expected KEY=VALUE" in fails(capsys, *rules, "--option", "tokens")
    assert "got url as an option; expected --url" in fails(capsys, *rules, "--option", "url=x")
    chat = fails(capsys, "x", "--rewriter", "a/b", "--option", "chat=abc")
    assert "got chat='abc'; expected names and values; write chat={NAME: VALUE}" in chat
    assert "got --tries 0; expected at least 1" in fails(capsys, *rules, "--tries", 0)
    assert "got --temperature -1.0" in fails(capsys, "x", "--rewriter", "a/b", "--temperature", -1)
    assert "expected one of .txt, .jsonl, .parquet" in fails(capsys, *rules, "-o", tmp_path / "o.csv")
    assert "in the place of" in fails(capsys, *rules, "--prompts", source, "-o", source)
    assert "expected a file that ends in .html" in fails(capsys, *rules, "--html", tmp_path / "page.txt")
    assert "expected a file that ends in .html" in fails(capsys, *rules, "--html", tmp_path)
    below = fails(capsys, *rules, "--html", source / "page.html")
    assert f"{source} is a file; expected a folder" in below
    assert "got model 'no/such'" in fails(capsys, *rules, "--fit", "no/such")
    (tmp_path / "old.jsonl").write_text("")
    old = fails(capsys, *rules, "-o", tmp_path / "old.jsonl", "--resume", "latest")
    assert "without old.jsonl.journal.jsonl" in old
    assert sorted(file.name for file in tmp_path.iterdir()) == ["old.jsonl", "prompts.jsonl"]
