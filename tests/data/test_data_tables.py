"""Tables as people have them: every line is a row or an error that names it, whatever wrote the file."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from t2ialign.data.files.tables import read_table


def rows(tmp_path, name, text, encoding="utf-8"):
    """The rows of a file of that name and text, without where they stand."""
    (tmp_path / name).write_bytes(text if isinstance(text, bytes) else text.encode(encoding))
    return [row for _, row in read_table(tmp_path / name)]


def refused(tmp_path, name, text, encoding="utf-8"):
    """The message about a file, after its path."""
    with pytest.raises(ValueError) as caught:
        rows(tmp_path, name, text, encoding)
    message = str(caught.value)
    assert "\n" not in message and len(message) < 1000 and str(tmp_path / name) in message
    return message.split(str(tmp_path / name))[1].strip()


def prompts(*texts):
    return [{"prompt": text} for text in texts]


PLAIN = ["a red circle", '"hello" on a sign', '"open quote here', "a blue square", '12" wide', 'ends so"']


class TestTsv:
    def test_every_line_is_a_row_and_a_stray_quote_is_text(self, tmp_path):
        text = "Prompt\tn\n" + "".join(f"{text}\t1\n" for text in PLAIN)
        assert rows(tmp_path, "p.tsv", text) == [{"Prompt": text, "n": "1"} for text in PLAIN]
        assert rows(tmp_path, "one.tsv", "prompt\n" + "\n".join(PLAIN)) == prompts(*PLAIN)

    def test_a_field_that_a_spreadsheet_put_in_quotes_loses_them(self, tmp_path):
        text = 'prompt\tn\r\n"a cat, a dog"\t1\r\n"say ""hi"""\t2\r\n"one\ttab"\t3\r\n""\t4\r\n'
        wanted = ["a cat, a dog", 'say "hi"', "one\ttab", ""]
        assert [row["prompt"] for row in rows(tmp_path, "p.tsv", text)] == wanted

    def test_a_line_break_within_quotes_is_an_error_not_two_rows(self, tmp_path):
        error = refused(tmp_path, "p.tsv", 'n\tprompt\n1\t"one\ntwo"\n')
        assert error.startswith(
            "line 3: got fewer fields than the header names, 1 where it has 2 (n, prompt)"
        )
        assert error.endswith("as CSV")


class TestCsv:
    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ('prompt\na\n"open quote here\nb\nc\n', 3),
            ('prompt\na\nb\n"open at the end', 4),
            ('prompt,n\n"open,1\nb,2\n"c",3\n', 2),
            ('prompt\n"hello" on a sign\n', 2),
            ('sep=;\n\nid;prompt\n1;a\n2;"open\n', 5),
            ('prompt\n"a \\"red\\" car"\n', 2),
        ],
    )
    def test_a_quote_that_is_not_closed_names_the_line_it_opens_in(self, tmp_path, text, line):
        error = refused(tmp_path, "p.csv", text)
        assert error.startswith(f"line {line}: got a ") and "not closed" in error and '""' in error

    def test_a_quote_that_is_open_for_thousands_of_lines_is_named_where_it_opens(self, tmp_path):
        error = refused(tmp_path, "p.csv", 'prompt,n\na,1\n\n"open,2\n' + "b,3\n" * 50_000)
        assert error.startswith("line 4: got a field that is not over after 131,072 characters")

    def test_quotes_in_the_middle_of_a_field_are_text(self, tmp_path):
        assert rows(tmp_path, "p.csv", 'prompt\n12" pizza\na "red" car\n') == prompts(
            '12" pizza', 'a "red" car'
        )

    @pytest.mark.parametrize("end", ["\n", "\r\n"])
    def test_a_line_break_within_quotes_is_one_row_and_is_mentioned(self, tmp_path, caplog, end):
        text = end.join(["prompt,n", '"one', 'two",1', "b,2", "", "", ""])
        assert rows(tmp_path, "p.csv", text) == [{"prompt": "one\ntwo", "n": "1"}, {"prompt": "b", "n": "2"}]
        assert "in 1 of its rows a field in quotes goes over several lines, first in line 2" in caplog.text

    @pytest.mark.parametrize(
        ("text", "wanted"),
        [
            ('id;prompt\n1;a cat, a dog\n2;"a; b"\n', ["a cat, a dog", "a; b"]),
            ("sep=;\nid;prompt\n1;a cat, a dog\n", ["a cat, a dog"]),
            ("id\tprompt\n1\ta cat, a dog\n", ["a cat, a dog"]),
            ("prompt\na cat; a dog\n", ["a cat; a dog"]),
            (",prompt\n0,a cat\n1,a dog\n", ["a cat", "a dog"]),  # as pandas numbers its rows
            ("prompt\ra\rb\r", ["a", "b"]),
            (" prompt \na\n", ["a"]),
            ('n, prompt \n1, a cat \n2, "a cat, a dog"\n', ["a cat", "a cat, a dog"]),
        ],
        ids=[
            "semicolons",
            "named",
            "tabs",
            "one column",
            "numbered",
            "old Mac",
            "blanks in the header",
            "blanks",
        ],
    )
    def test_what_spreadsheets_and_pandas_write(self, tmp_path, text, wanted):
        assert [row["prompt"] for row in rows(tmp_path, "p.csv", text)] == wanted

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            (
                "prompt,n\na cat, asleep,1\n",
                "line 2: got more fields than the header names, 3 where it has 2",
            ),
            ("prompt,n\na\n", "line 2: got fewer fields than the header names, 1 where it has 2 (prompt, n)"),
            ("prompt,Prompt\na,b\n", "line 1: got the column 'prompt' twice"),
            ("prompt,\na cat,\na, b\n", "line 3: got 'b' in a column without a name"),
            (b"prompt\na\0b\n", "line 2: got a NUL byte"),
        ],
    )
    def test_lines_that_do_not_fit_are_named(self, tmp_path, text, says):
        assert refused(tmp_path, "p.csv", text).startswith(says)

    def test_blank_lines_and_rows_are_skipped_but_an_empty_text_in_quotes_is_a_row(self, tmp_path):
        assert rows(tmp_path, "p.csv", 'prompt\n\na\n""\n\n') == prompts("a", "")
        assert rows(tmp_path, "two.csv", "prompt,n\na,1\n,\n , \n") == [{"prompt": "a", "n": "1"}]


class TestEncodings:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
    @pytest.mark.parametrize(
        ("name", "text"),
        [("p.csv", "prompt\nFüße\n"), ("p.jsonl", '{"prompt": "Füße"}\n'), ("p.txt", "Füße\n")],
    )
    def test_utf_with_a_mark_is_read(self, tmp_path, encoding, name, text):
        assert rows(tmp_path, name, text, encoding) == prompts("Füße")

    def test_other_encodings_name_the_line_and_the_way_out(self, tmp_path):
        error = refused(tmp_path, "p.csv", "prompt\n" + "ok\n" * 9000 + "Füße\n", "cp1252")
        assert error.startswith("line 9002: got b'\\xfc\\xdfe") and "iconv -f cp1252 -t utf-8" in error
        assert "NUL" in refused(tmp_path, "p.txt", "Fusse\n", "utf-16-le")


class TestJson:
    def test_objects_of_rows_and_lines_by_another_ending(self, tmp_path):
        keyed = {"00": {"prompt": "a"}, "01": {"prompt": "b"}}
        assert rows(tmp_path, "a.json", json.dumps(keyed)) == prompts("a", "b")
        assert rows(tmp_path, "b.json", json.dumps({"1.txt": "a", "2.txt": "b"})) == prompts("a", "b")
        assert rows(tmp_path, "c.json", '{"prompt": "a"}\n{"prompt": "b"}\n') == prompts("a", "b")

    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            ("p.json", '[\n{"prompt": "a"},\n]\n', "line 3: got text that is no JSON"),
            ("p.jsonl", '{"prompt": "a"}\n\n{"prompt": "b",}\n', "line 3: got text that is no JSON"),
            ("p.json", "[" * 100_000, "got text that is no JSON"),
            ("p.jsonl", f'{{"n": {"1" * 5000}}}', "line 1: got text that is no JSON"),
            ("p.jsonl", '[{"prompt": "a"}]', "line 1: got a JSON list, [{'prompt': 'a'}]"),
            ("p.json", '{"chosen": "a.png", "rejected": "b.png"}', "expected a list of objects"),
        ],
    )
    def test_what_is_no_table_is_named(self, tmp_path, name, text, says):
        assert says in refused(tmp_path, name, text)


def test_parquet_by_its_columns(tmp_path):
    file = tmp_path / "p.parquet"
    pq.write_table(pa.table({"prompt": pa.array(["a", "b"]).dictionary_encode(), "image": [b"", b""]}), file)
    assert [row for _, row in read_table(file, lambda where, names: names[:1])] == prompts("a", "b")
    pq.write_table(pa.Table.from_arrays([pa.array(["a"])] * 2, names=["prompt", "prompt"]), file)
    with pytest.raises(ValueError, match="got columns prompt, prompt"):
        list(read_table(file))


@pytest.mark.parametrize(
    ("name", "advice"),
    [("p.xlsx", "CSV UTF-8"), ("p.csv.gz", "unpack"), ("p.arrow", "parquet"), ("p.yaml", "convert")],
)
def test_files_of_other_programs_say_what_to_do(tmp_path, name, advice):
    assert advice in refused(tmp_path, name, b"PK\3\4")
