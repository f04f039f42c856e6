import json
import os
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2ialign.data.files import lines
from t2ialign.data.prompts import place_of, prompt_or_none, prompt_text, read_prompts
from t2ialign.data.skipped import Fault

PROMPTS = ["a red circle", "zwei Füße, „groß“", 'a sign that says "stop, now"']
PUBLIC = Path(os.environ.get("T2IALIGN_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))


def quoted(separator: str) -> str:
    rows = ["id" + separator + "Prompt"]
    rows += [f"{i}{separator}" + '"' + p.replace('"', '""') + '"' for i, p in enumerate(PROMPTS)]
    return "\r\n".join(rows) + "\r\n"


def as_parquet(path: Path, prompts: list[str | None], kind: pa.DataType | None = None) -> Path:
    pq.write_table(pa.table({"n": range(len(prompts)), " Caption": pa.array(prompts, kind)}), path)
    return path


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


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string())])
def test_parquet_gives_it_too(tmp_path, kind):
    assert read_prompts(as_parquet(tmp_path / "p.parquet", PROMPTS, kind)) == PROMPTS


NOTHING = [None, float("nan"), "", " \t", "nan", "NaN", "None", "null", "\u200b"]


@pytest.mark.parametrize("value", NOTHING)
def test_nothing_is_never_a_prompt(value):
    assert prompt_or_none("here", value) is None
    with pytest.raises(Fault, match=r"^here: got prompt .*, which is empty; expected text"):
        prompt_text("here", value)


@pytest.mark.parametrize("value", [3, 0.5, True, ["a"], {"a": 1}, b"a", "\ud83d"])
def test_nor_is_what_is_no_text(value):
    with pytest.raises(Fault, match=r"^here: got prompt .*; expected text"):
        prompt_or_none("here", value)


def test_a_prompt_is_given_as_it_stands():
    assert prompt_text("here", " none of it ") == " none of it "


@pytest.mark.parametrize("ending", ["jsonl", "json", "csv", "tsv", "parquet", "txt"])
def test_rows_without_a_prompt_are_left_out_and_counted(tmp_path, caplog, ending):
    """Empty, null and "nan" cells, and in a text file, whose blank lines mean nothing, "None" lines."""
    given: list[str | None] = ["a", "", "nan", "b", "None", "c", "d"]
    path = tmp_path / f"p.{ending}"
    if ending == "parquet":
        as_parquet(path, ["a", None, "nan", "b", " ", "c", "d"])
    elif ending in ("json", "jsonl"):
        rows = [json.dumps({"prompt": text or None}) for text in given]
        path.write_text("\n".join(rows) if ending == "jsonl" else f"[{','.join(rows)}]")
    elif ending == "txt":
        path.write_text("a\n\nnull\nnan\nb\nNone\nc\nd\n")
    else:
        comma = "\t" if ending == "tsv" else ","
        path.write_text("".join(f"{text}{comma}1\n" for text in ["prompt", *given]))
    assert read_prompts(path) == ["a", "b", "c", "d"]
    assert f"p.{ending}: 3 of 7 rows left out: 3 without a prompt (first: " in caplog.text


def test_a_file_of_nothing_else_is_an_error(tmp_path):
    (tmp_path / "p.csv").write_text("prompt,n\n,1\nnan,2\n")
    with pytest.raises(
        ValueError, match=r"no prompts in .*2 of 2 rows left out: 2 without a prompt \(first: line 2"
    ):
        read_prompts(tmp_path / "p.csv")


def test_text_files_that_look_like_something_else_are_mentioned(tmp_path, caplog):
    (tmp_path / "p.txt").write_text("# mine\n\na\n")
    assert read_prompts(tmp_path / "p.txt") == ["# mine", "a"] and "begins with # is a prompt" in caplog.text
    (tmp_path / "t.txt").write_text("prompt\tn\na\t1\n", encoding="utf-16")
    assert read_prompts(tmp_path / "t.txt") == ["prompt\tn", "a\t1"] and "name a table .tsv" in caplog.text


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
    (tmp_path / "toy").mkdir()
    monkeypatch.chdir(tmp_path)
    assert read_prompts("toy") == ["toy"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("gone.txt", None, "gone.txt, which is no file"),
        ("gone.jsonl", None, "gone.jsonl, which is no file"),
        ("gone.parquet", None, "gone.parquet, which is no file"),
        ("book.xlsx", b"PK", "CSV UTF-8"),
        ("gone.xlsx", None, "CSV UTF-8"),
        ("p.jsonl.gz", b"", "unpack it"),
        (
            "headless.csv",
            b"a cat\na dog\n",
            "line 1: got columns a cat; expected one of prompt, caption, text",
        ),
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


COUNTS = {
    "alignprop-hps/assets/hps_v2_all.txt": 750,
    "bagel-geneval-long/eval/gen/geneval/prompts/evaluation_metadata_long.jsonl": 553,
    "bagel-geneval-long/eval/gen/wise/final_data.json": 1000,
    "ddpo/ddpo_pytorch/assets/imagenet_classes.txt": 1000,
    "ddpo/ddpo_pytorch/assets/simple_animals.txt": 45,
    "diffusion-nft/dataset/drawbench/test.txt": 1000,
    "flow-grpo/dataset/geneval/test_metadata.jsonl": 2212,
    "flow-grpo/dataset/ocr/test.txt": 1018,
    "flow-grpo/dataset/pickscore/test.txt": 2048,
    "geneval/prompts/evaluation_metadata.jsonl": 553,
    "geneval/prompts/generation_prompts.txt": 553,
    "imagereward/benchmark/benchmark-prompts.json": 100,
    "imagereward/data/refl_data.json": 10000,
    "imagereward/data/test.json": 466,
    "lpo/lpo/prompts/4k_training_prompts.json": 4000,
    "partiprompts/PartiPrompts.tsv": 1632,
    "sugar-crepe/data/add_att.json": 692,
    "sugar-crepe/data/replace_rel.json": 1406,
    "t2i-compbench/examples/dataset/color_train.txt": 700,
    "t2i-compbench/examples/dataset/complex_val.txt": 300,
    "unigenbench/data/test_prompts_en.csv": 600,
    "unigenbench/data/test_prompts_en_long.csv": 600,
    "uniworld-v1-eval/univa/eval/dpgbench/eval_prompts/dpgbench_prompts.json": 1065,
    "uniworld-v1-eval/univa/eval/genai/eval_prompts/genai1600/genai_image.json": 1600,
    "uniworld-v1-eval/univa/eval/wise/data/natural_science.json": 300,
}
"""Published sets -> their prompts, as their own pages count them."""


@pytest.mark.parametrize("name", COUNTS)
def test_published_lists(name, caplog):
    if not (PUBLIC / name).is_file():
        pytest.skip(f"no {name} in T2IALIGN_DATA={PUBLIC}")
    prompts = read_prompts(PUBLIC / name)
    assert len(prompts) == COUNTS[name] and not any("left out" in text for text in caplog.messages)


def test_published_quotes_are_text():
    file = PUBLIC / "partiprompts" / "PartiPrompts.tsv"
    if not file.is_file():
        pytest.skip(f"no {file}")
    (line,) = [prompt for prompt in read_prompts(file) if "G I G G L E" in prompt]
    assert line.startswith('"G I G G L E" painted in thick colorful lettering')


def test_a_pipe_is_a_file_of_prompts(tmp_path):
    """What a shell makes of <(command): it has no ending, and can be read once."""
    pipe = tmp_path / "63"
    os.mkfifo(pipe)
    content = ("caf\u00e9\n\ntwo\r\n" * 9000).encode()
    writer = threading.Thread(target=pipe.write_bytes, args=[content])
    writer.start()
    assert read_prompts(str(pipe)) == ["caf\u00e9", "two"] * 9000
    writer.join()


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "got nothing in"), (b"a" * 99, "more than 50"), (b"\xff", "not UTF-8")]
)
def test_a_pipe_that_gives_no_prompts_is_one_line(tmp_path, monkeypatch, content, message):
    monkeypatch.setattr(lines, "WAIT", 0.1)
    monkeypatch.setattr(lines, "LARGEST", 50)
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    if content:
        writer = threading.Thread(target=pipe.write_bytes, args=[content])
        writer.start()
    with pytest.raises(ValueError, match=message):
        read_prompts(str(pipe))
    if content:
        writer.join()


def test_the_row_of_a_prompt_is_found_in_a_file_that_names_it(tmp_path):
    text, table = tmp_path / "a.txt", tmp_path / "b.csv"
    text.write_text("one\n\n two \nthree\n")
    table.write_text("id,Prompt\n1,one\n2,two\n")
    assert place_of(text, ["two", "three"]) == f"{text} line 3"
    assert place_of(str(table), ["two"]) == f"{table} line 3"
    assert place_of(text, ["four"]) is None
    assert place_of("a red circle" * 99, ["two"]) is None
    table.write_text("id,words\n2,two\n")
    assert place_of(table, ["two"]) is None
