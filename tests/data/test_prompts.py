import json
import os
from pathlib import Path

import pytest

from t2ialign.data.prompts import read_prompts

PROMPTS = ["a red circle", "zwei Füße, „groß“", 'a sign that says "stop, now"']
PUBLIC = Path(os.environ.get("T2IALIGN_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def quoted(separator: str) -> str:
    rows = ["id" + separator + "Prompt"]
    rows += [f"{i}{separator}" + '"' + p.replace('"', '""') + '"' for i, p in enumerate(PROMPTS)]
    return "\r\n".join(rows) + "\r\n"


FILES = {
    "p.txt": "\n" + "\n\n".join(PROMPTS) + "\n  \n",
    "crlf.txt": "\r\n".join(PROMPTS),
    "p.jsonl": "\n".join(json.dumps({"text": p, "n": 1}, ensure_ascii=False) + "\n" for p in PROMPTS),
    "strings.jsonl": "\n".join(json.dumps(p) for p in PROMPTS),
    "p.json": json.dumps([{"caption": p} for p in PROMPTS], indent=2),
    "strings.json": json.dumps(PROMPTS),
    "p.csv": quoted(","),
    "p.tsv": quoted("\t"),
}


@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"], ids=["plain", "bom"])
@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_list(tmp_path, name, bom):
    path = tmp_path / name
    path.write_bytes(bom + FILES[name].encode())
    assert read_prompts(path) == read_prompts(str(path)) == PROMPTS


def test_negative_prompts_are_not_dropped_in_silence(tmp_path, caplog):
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a", "negative_prompt": "blurry"}\n{"prompt": "b", "negative_prompt": ""}\n')
    assert read_prompts(path) == ["a", "b"]
    assert "p.jsonl: negative_prompt of 1 rows is not used" in caplog.text
    caplog.clear()
    path.write_text('{"prompt": "a"}\n')
    assert read_prompts(path) == ["a"] and not caplog.text


def test_prompt_column_wins_over_others(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "b", "prompt": "a"}\n')
    assert read_prompts(path) == ["a"]


def test_quoted_csv_field_may_span_lines(tmp_path):
    path = tmp_path / "p.csv"
    path.write_text('prompt\n"one\ntwo"\nthree\n')
    assert read_prompts(path) == ["one\ntwo", "three"]


@pytest.mark.parametrize(
    "text", ["a cat", "a cat.", "x" * 5000, "what/ever you like", "two\nlines.txt", "1.5"]
)
def test_literal_prompt(text):
    assert read_prompts(text) == [text]


def test_folder_of_that_name_does_not_turn_a_prompt_into_a_path(tmp_path, monkeypatch):
    (tmp_path / "shapes").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_prompts("shapes") == ["shapes"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.txt", None, "gone.txt, which is no file"),
        ("gone.jsonl", None, "gone.jsonl, which is no file"),
        ("empty.txt", b"\n \n", "no prompts"),
        ("latin.txt", "Füße".encode("latin-1"), "not UTF-8"),
        ("bad.jsonl", b'{"prompt": "a"}\n{"prompt": \n', "bad.jsonl line 2"),
        (
            "names.jsonl",
            b'{"words": "a"}\n',
            "line 1: got columns words; expected one of prompt, caption, text",
        ),
        ("number.jsonl", b'{"prompt": 3}\n', "line 1: got prompt 3; expected text"),
        ("list.jsonl", b"[1]\n", "line 1: got a JSON list"),
        ("dict.json", b'{"prompt": "a"}', "JSON dict"),
        ("comma.csv", b"prompt\na cat, sleeping\n", "line 2: got more fields than the header names"),
    ],
)
def test_bad_files_are_named_in_one_line(tmp_path, name, content, words):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError) as caught:
        read_prompts(str(path))
    assert words in str(caught.value) and name in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "  "])
def test_empty_text_is_no_prompt(text):
    with pytest.raises(ValueError, match="empty prompt"):
        read_prompts(text)


@pytest.mark.parametrize(
    ("name", "count", "first"),
    [
        ("partiprompts/PartiPrompts.tsv", 1632, "bond"),
        ("lpo/lpo/prompts/4k_training_prompts.json", 4000, "a cat driving a nuke"),
        ("ddpo/ddpo_pytorch/assets/simple_animals.txt", 45, "cat"),
        ("flow-grpo/dataset/geneval/test_metadata.jsonl", 2212, None),
    ],
)
def test_published_lists(name, count, first):
    if not (PUBLIC / name).is_file():
        pytest.skip(f"no {name} in T2IALIGN_DATA={PUBLIC}")
    prompts = read_prompts(PUBLIC / name)
    assert len(prompts) == count
    assert first in (None, prompts[0])
