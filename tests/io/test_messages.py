"""What messages show of files: cut, on one line, without control characters."""

import logging

import pytest

from t2ialign.io.messages import MESSAGE, VALUE, OneLine, listed, one_line, printable, quoted


@pytest.mark.parametrize(
    "value",
    ["x" * 10**6, b"\xff" * 10**6, ["x" * 10**6] * 9, {"a": {"b": {"c": {"d": [b"y" * 10**6]}}}}, "\n" * 99],
)
def test_a_value_is_cut_and_stays_on_one_line(value):
    shown = quoted(value)
    assert len(shown) <= VALUE and "\n" not in shown and shown.isprintable()


def test_short_values_are_whole():
    assert [quoted(value) for value in ("a", None, 3, float("nan"), ["a"])] == [
        "'a'",
        "None",
        "3",
        "nan",
        "['a']",
    ]
    assert quoted("x" * 78) == repr("x" * 78) and quoted("x" * 79).endswith("...")


def test_escape_sequences_become_text():
    evil = "\x1b]0;pwned\x07 \u202egnp"
    for shown in (quoted(evil), one_line(evil), listed([evil, "a"])):
        assert shown.isprintable() and "\\x1b" in shown and "\\u202e" in shown


def test_printable_keeps_text_in_any_language_and_its_lines():
    assert printable("zwei Füße 🙂\n\u3000b\x1b[2J\x9b") == "zwei Füße 🙂\n\u3000b\\x1b[2J\\x9b"


def test_columns_are_listed_up_to_twenty():
    assert listed(["a", "b"]) == "a, b" and listed([]) == "none"
    assert listed(range(23)) == ", ".join(map(str, range(20))) + ", and 3 more"


def test_both_ends_of_a_long_message_are_kept():
    line = one_line("got " + "x\n" * 10**5 + "; mend the row")
    assert len(line) <= MESSAGE and line.startswith("got x x") and line.endswith("x ; mend the row")
    record = logging.LogRecord("t2ialign", logging.INFO, "", 0, "%s", ("y" * 5000,), None)
    assert len(OneLine("t2ialign: %(message)s").format(record)) <= MESSAGE
