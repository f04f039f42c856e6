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
        ("<think>plan</think>a grey cat", "plan", "a grey cat", None),
        ("<think>\nplan\n</think>\n\na grey cat\n", "plan", "a grey cat", None),
        ("It is asked <think>plan</think>a grey cat", "It is asked plan", "a grey cat", None),
        # The released code counts "think>", so two closing marks pass as well.
        ("plan</think> more</think> a grey cat", "plan more", "a grey cat", None),
        ("<think></think><think>plan</think>a grey cat", "plana grey cat", PROMPT, p.MARKS),
        ("plan</think>a grey cat", "plana grey cat", PROMPT, p.MARKS),
        ("<think>plan", "plan", PROMPT, p.MARKS),
        ("</think></think></think>a grey cat", "a grey cat", PROMPT, p.MARKS),
        ("<think>a rethink></think>b", "a rethink>b", PROMPT, p.MARKS),
        ("a grey cat", "a grey cat", PROMPT, p.MARKS),
        ("<think>a</think>  ", "a", PROMPT, p.EMPTY),
        # It would take these too: what follows an opening mark is a thought without an end.
        ("a</think><think>more", "amore", PROMPT, p.THOUGHT_OPEN),
        ("<think>a<think>more", "amore", PROMPT, p.THOUGHT_OPEN),
    ],
)
def test_last_think(output, thought, answer, fallback):
    assert parse(output, PROMPT, convention="last_think") == Parsed(thought, answer, fallback)


@pytest.mark.parametrize(
    ("added", "answer", "fallback"),
    [
        (" in fog, 4 k", "a cat in fog, 4 k", None),
        (", in fog, \n", "a cat, in fog", None),
        ("alogue of toys, 4 k", "a cat of toys, 4 k", None),  # no word of the user grows
        (" in fog, highly deta" + CUT, "a cat in fog", None),
        (". In fog. highly" + CUT, "a cat. In fog", None),
        (" in deep fo" + CUT, "a cat in deep", None),
        ("", PROMPT, p.EMPTY),
        (" ,- ", PROMPT, p.EMPTY),
        (" fo" + CUT, PROMPT, p.EMPTY),
    ],
)
@pytest.mark.parametrize("repeated", [True, False], ids=["with the prompt", "what was added"])
def test_continuation(added, answer, fallback, repeated):
    """As pipelines for text return it, prompt and all, or as a writer does, what is new alone."""
    output = PROMPT + added if repeated else added
    assert parse(output, PROMPT, convention="continuation") == Parsed("", answer, fallback)


def test_a_continued_prompt_begins_with_the_prompt_without_outer_blanks():
    assert parse(" in fog", " a cat ", convention="continuation").answer == "a cat in fog"
    assert parse("a cat in fog", " a cat ", convention="continuation").answer == "a cat in fog"
    assert parse("3 k", "a cat, ", convention="continuation").answer == "a cat,3 k"
    assert (
        parse("在雾中", "三只猫", convention="continuation").answer == "三只猫在雾中"
    )  # no blanks between words


@pytest.mark.parametrize(
    ("written", "answer", "fallback"),
    [
        (" a grey cat, intricate", "a grey cat, intricate", None),
        (" a grey cat, intri" + CUT, "a grey cat", None),
        ("  ", PROMPT, p.EMPTY),
    ],
)
@pytest.mark.parametrize("before", ["a cat Rephrase:", ""])
def test_rephrase(written, answer, fallback, before):
    assert parse(before + written, PROMPT, convention="rephrase") == Parsed("", answer, fallback)


def test_a_cut_output_is_named_unless_its_answer_was_closed():
    assert parse("<answer>a grey cat</answer> and" + CUT, PROMPT) == Parsed("", "a grey cat")
    for output in ("<think>long", "<answer>a grey", "a grey"):
        assert parse(output + CUT, PROMPT).fallback == p.LIMIT
        assert parse(output + CUT, PROMPT).answer == PROMPT
    cut = parse("<think>a</think>a grey" + CUT, PROMPT, convention="last_think")
    assert (cut.answer, cut.fallback) == (PROMPT, p.LIMIT)


def test_only_text_of_the_output_is_usable():
    assert parse("a grey cat", PROMPT).usable and parse("<answer>x</answer>", PROMPT).usable
    assert not parse("<answer>x", PROMPT).usable
    assert len(set(FALLBACKS)) == len(FALLBACKS)


def test_unknown_convention():
    with pytest.raises(
        ValueError, match=r"got convention 'xml'; expected one of tags, last_think, continuation, rephrase"
    ):
        parse("a", PROMPT, convention="xml")
