"""Outputs of every shape, well formed and not: the answer by hand, and the name of each fall-back."""

import pytest

from t2ialign.rewriting import parse as p
from t2ialign.rewriting.parse import CUT, FALLBACKS, Parsed, parse

PROMPT = "a cat"


@pytest.mark.parametrize(
    ("output", "thought", "answer", "fallback"),
    [
        ("<think>plan</think><answer>a grey cat</answer>", "plan", "a grey cat", None),
        ("<think>\nplan\n</think>\n\n<answer>\n a grey cat \n</answer>\n", "plan", "a grey cat", None),
        ("<answer>a grey cat</answer>", "", "a grey cat", None),
        ("<answer>a grey cat</answer> and more talk", "", "a grey cat", None),
        ("<think>never closed <answer>a grey cat</answer>", "never closed", "a grey cat", None),
        ("<think>plan</think> a grey cat", "plan", "a grey cat", p.NO_TAGS),
        ("a grey cat", "", "a grey cat", p.NO_TAGS),
        # A template that opens the thought in the prompt leaves a closing mark alone.
        ("plan</think> a grey cat", "plan", "a grey cat", p.NO_TAGS),
        ("plan</think> more</think> a grey cat", "plan\n more", "a grey cat", p.NO_TAGS),
        ("<think>a <think>b</think> c</think> a grey cat", "a b\n c", "a grey cat", p.NO_TAGS),
        ("plan</think> a <think>more", "plan a more", PROMPT, p.THOUGHT_OPEN),
        ("plan</think><answer>a grey cat</answer>", "plan", "a grey cat", None),
        ("try <answer>draft</answer> more</think> a grey cat", "try", PROMPT, p.NESTED),
        ("<think>a</think> one <think>b</think> two", "a\nb", "one  two", p.NO_TAGS),
        ("<think>plan without end", "plan without end", PROMPT, p.THOUGHT_OPEN),
        ("<think>plan</think>", "plan", PROMPT, p.EMPTY),
        ("", "", PROMPT, p.EMPTY),
        ("<think>plan</think><answer> \n </answer>", "plan", PROMPT, p.EMPTY),
        ("<think>plan</think><answer>a grey", "plan", PROMPT, p.NOT_CLOSED),
        ("</answer>a grey cat<answer>", "a grey cat", PROMPT, p.NOT_CLOSED),
        ("a grey cat</answer>", "", PROMPT, p.NOT_OPENED),
        ("<answer>a</answer></answer>", "", PROMPT, p.NOT_OPENED),
        ("<answer>a</answer><answer>b</answer>", "", PROMPT, p.SEVERAL),
        ("<answer>a</answer><answer>a</answer>", "", PROMPT, p.SEVERAL),
        ("<answer>a <answer>b</answer></answer>", "", PROMPT, p.NESTED),
        ("<answer>a <answer>b</answer>", "", PROMPT, p.NESTED),
        ("<think>try <answer>draft</answer> more</think>", "try", PROMPT, p.NESTED),
        ("<think>try <answer>draft</answer></think><answer>a</answer>", "try", PROMPT, p.NESTED),
    ],
)
def test_tags(output, thought, answer, fallback):
    assert parse(output, PROMPT) == Parsed(thought, answer, fallback)


@pytest.mark.parametrize(
    ("output", "thought", "answer", "fallback"),
    [
        ("<think></think><think>plan</think>a grey cat", "plan", "a grey cat", None),
        ("plan</think> more</think> a grey cat", "plan more", "a grey cat", None),
        ("<think>plan</think>a grey cat", "plana grey cat", PROMPT, p.MARKS),
        ("</think></think></think>a grey cat", "a grey cat", PROMPT, p.MARKS),
        ("a grey cat", "a grey cat", PROMPT, p.MARKS),
        ("<think>a</think>b</think>  ", "ab", PROMPT, p.EMPTY),
        ("a</think>b</think><think>more", "ab", PROMPT, p.THOUGHT_OPEN),
    ],
)
def test_last_think(output, thought, answer, fallback):
    assert parse(output, PROMPT, convention="last_think") == Parsed(thought, answer, fallback)


def test_a_cut_output_is_named_unless_its_answer_was_closed():
    assert parse("<answer>a grey cat</answer> and" + CUT, PROMPT) == Parsed("", "a grey cat")
    for output in ("<think>long", "<answer>a grey", "a grey"):
        assert parse(output + CUT, PROMPT).fallback == p.LIMIT
        assert parse(output + CUT, PROMPT).answer == PROMPT
    cut = parse("a</think>b</think>a grey" + CUT, PROMPT, convention="last_think")
    assert (cut.answer, cut.fallback) == (PROMPT, p.LIMIT)


def test_only_text_of_the_output_is_usable():
    assert parse("a grey cat", PROMPT).usable and parse("<answer>x</answer>", PROMPT).usable
    assert not parse("<answer>x", PROMPT).usable
    assert len(set(FALLBACKS)) == len(FALLBACKS)


def test_unknown_convention():
    with pytest.raises(ValueError, match=r"got convention 'xml'; expected one of tags, last_think"):
        parse("a", PROMPT, convention="xml")
