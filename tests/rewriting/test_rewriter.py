"""Prompts through a scripted rewriter: who is asked again, what is used, and the figures of a run."""

import pytest

from t2ialign.rewriting.parse import CUT, LIMIT, NO_TAGS, NOT_CLOSED
from t2ialign.rewriting.rewriter import ALONE, BUDGET, judge, report, rewrite
from t2ialign.rewriting.survival import Lost
from tests.conftest import tiny_tokenizer


class Scripted:
    """Answers each prompt from a list, one entry an attempt, and remembers what it was asked."""

    def __init__(self, **answers):
        self.answers, self.requests = answers, []

    def write(self, prompts, *, attempt):
        self.requests.append((attempt, list(prompts)))
        return [self.answers[prompt.split()[0]][attempt] for prompt in prompts]


def good(text):
    return f"<think>why</think><answer>{text}</answer>"


def test_only_failures_are_asked_again():
    script = Scripted(
        cat=[good("cat, grey")],
        three=[good("dogs"), good("3 dogs run")],
        bad=["<answer>x", "<answer>y"],
    )
    results = rewrite(script, ["cat", "three dogs", "bad"], tries=2)
    assert script.requests == [(0, ["cat", "three dogs", "bad"]), (1, ["three dogs", "bad"])]
    assert [result.text for result in results] == ["cat, grey", "3 dogs run", "bad"]
    assert [result.used for result in results] == ["rewrite", "rewrite", "original"]
    assert [result.reason for result in results] == [None, None, NOT_CLOSED]
    assert [result.tries for result in results] == [1, 2, 2]
    assert results[0].thought == "why"


def test_a_loss_after_the_last_try_keeps_the_prompt_and_says_what():
    (result,) = rewrite(Scripted(three=[good("dogs with hats")]), ["three dogs, no hats"], tries=1)
    assert result.text == "three dogs, no hats" and result.reason == "lost: number, negation"
    assert result.lost == (Lost("number", "three dogs"), Lost("negation", "no hats"))
    assert result.rewrite == "dogs with hats"


def test_a_rewriter_that_replaces_words_is_not_held_to_them():
    script = Scripted(a=[good("a purple cross and no triangle")])
    (result,) = rewrite(script, ["a plum cross without any pyramid"], survival=False)
    assert (result.used, result.tries) == ("rewrite", 1)
    assert [loss.what for loss in result.lost] == ["negation"]  # noted all the same


def test_long_prompts_are_never_asked():
    script = Scripted(a=[good("a cat")])
    long = "word " * 81
    results = rewrite(script, [long, "a"], tries=3)
    assert script.requests == [(0, ["a"])]
    assert (results[0].text, results[0].reason, results[0].tries) == (long, ALONE, 0)
    assert rewrite(Scripted(), ["one two"], longest=1)[0].reason == ALONE


def test_an_answer_without_tags_is_used_and_named():
    (result,) = rewrite(Scripted(a=["a grey cat"]), ["a cat"], tries=1)
    assert (result.used, result.text, result.fallback) == ("rewrite", "a grey cat", NO_TAGS)
    assert judge("a cat", "a grey" + CUT).reason == LIMIT


def test_the_budget_drops_sentences_and_refuses_what_cannot_fit():
    tokens = tiny_tokenizer()
    fitting = judge("a cat", good("A cat. It is very big."), tokenizer=tokens, limit=10)
    assert (fitting.used, fitting.text, fitting.dropped) == ("rewrite", "A cat.", ("It is very big.",))
    endless = judge("a cat", good("x" * 40), tokenizer=tokens, limit=10)
    assert (endless.used, endless.reason, endless.text) == ("original", BUDGET, "a cat")
    torn = judge("a cat, no dog", good("A big grey cat. There is no dog."), tokenizer=tokens, limit=16)
    assert (torn.used, torn.reason) == ("original", BUDGET) and torn.lost == (Lost("negation", "no dog"),)


def test_report_by_hand():
    script = Scripted(
        cat=[good("cat, grey and old")],
        three=[good("dogs"), good("dogs")],
        bad=["<answer>x", "fine words"],
        bare=["bare words here"],
    )
    long = " ".join(["long"] * 82)
    figures = report(rewrite(script, ["cat", "three dogs", "bad", "bare", long]))
    assert figures["prompts"] == 5 and figures["asked"] == 4
    assert figures["rewritten"] == 0.75 and figures["tried_again"] == 0.5
    assert figures["fallbacks"] == {NO_TAGS: 0.5}
    assert figures["lost"] == {"quote": 0, "number": 0.25, "negation": 0}
    assert figures["original"] == {"lost: number": 1, ALONE: 1}
    assert figures["words_before"] == (1 + 2 + 1 + 1 + 82) / 5
    assert figures["words_after"] == (4 + 2 + 2 + 3 + 82) / 5
    assert figures["shortened"] == 0


def test_misuse():
    class Short:
        def write(self, prompts, *, attempt):
            return []

    with pytest.raises(ValueError, match="got 0 outputs of 1 prompts"):
        rewrite(Short(), ["a"])
    with pytest.raises(ValueError, match="got 0 tries"):
        rewrite(Short(), ["a"], tries=0)
    with pytest.raises(ValueError, match="got no rewritten prompts"):
        report([])
    assert rewrite(Short(), []) == []
