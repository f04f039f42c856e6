"""Lengths of texts: what is too long costs no time, whatever it is made of, and says so."""

import random
import time

import pytest

from rewards.checks import check_prompts
from rewards.keypoints.rules import extract
from rewards.keypoints.taxonomy import LETTERS
from rewards.text import contrast
from rewards.text.length import LONGEST_PROMPT
from rewards.towers.tokens import clip_tokens
from t2ialign.rewriting import rules
from t2ialign.rewriting.intensity import BYTES_A_WORD, leave_alone, length, word_count
from t2ialign.rewriting.parse import MOST, TOO_LONG, parse
from t2ialign.rewriting.quotes import quoted
from t2ialign.rewriting.rewriter import ALONE, BUDGET, LONGEST_REWRITE, judge, rewrite
from t2ialign.rewriting.rules import Rules
from t2ialign.rewriting.survival import check

WORD = "".join(random.Random(0).choices("abcdefghijklmnopqrstuvwxyz", k=300_000))
TEXTS = {
    "one word": WORD,
    "digits": "1" * 300_000,
    "words": "red cat and a dog " * 20_000,
    "negations": "no dog without a cat " * 15_000,
    "open quotes": "'a " * 100_000,
    "pairs": "a pair of " * 30_000,
    "blanks": "cat" + " " * 300_000 + "dog",
    "brackets": "cat " + "(" * 300_000,
    "marks": "<think>" * 43_000,
    "mojibake": "\u00c3\u00a9" * 150_000,
}


def seconds(call, *args, **options) -> float:
    start = time.perf_counter()
    call(*args, **options)
    return time.perf_counter() - start


def test_a_long_word_counts_once_for_every_few_letters():
    assert length("a red cat") == word_count("a red cat") == 3
    assert length("x" * BYTES_A_WORD) == 1 and length("x" * (BYTES_A_WORD + 1)) == 2
    assert length("\u732b" * 80) == 10, "three bytes a character, without blanks"
    assert not leave_alone("word " * 80) and leave_alone("word " * 81)
    assert leave_alone("x" * (80 * BYTES_A_WORD + 1)) and not leave_alone("x" * 80 * BYTES_A_WORD)


@pytest.mark.parametrize("kind", [kind for kind in TEXTS if kind != "blanks"])
def test_a_prompt_of_300_000_letters_is_left_alone_at_once(kind):
    start = time.perf_counter()
    (result,) = rewrite(Rules(), [TEXTS[kind]])
    assert result.reason == ALONE and result.text == TEXTS[kind] and result.tries == 0
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("kind", TEXTS)
def test_an_output_of_300_000_letters_is_a_named_fall_back_at_once(kind):
    start = time.perf_counter()
    result = judge("a cat", f"<think>t</think><answer>{TEXTS[kind]}</answer>")
    assert result.reason == result.fallback == TOO_LONG and result.text == "a cat"
    assert time.perf_counter() - start < 1
    assert parse("x" * MOST, "a cat").fallback != TOO_LONG


def test_a_rewrite_that_no_encoder_reads_is_over_the_budget():
    assert judge("a cat", f"<answer>{'a cat ' * (LONGEST_REWRITE // 6 + 1)}</answer>").reason == BUDGET


@pytest.mark.parametrize("kind", TEXTS)
def test_the_longest_texts_that_are_read_take_no_time(kind):
    """A limit helps if what it lets pass is quick: before, some of these took more than 8 s."""
    assert seconds(check, TEXTS[kind][:LONGEST_REWRITE], TEXTS[kind][:LONGEST_REWRITE]) < 8
    assert seconds(rules.explain, TEXTS[kind][: rules.MOST]) < 8
    assert seconds(extract, TEXTS[kind][:LETTERS]) < 8
    assert seconds(contrast.near_misses, TEXTS[kind][: contrast.LETTERS]) < 8


def test_the_rules_read_no_more_than_they_say():
    text = "a cat " * 400
    thought, answer = rules.explain(text)
    assert answer == text and f"more than {rules.MOST} letters" in thought


def test_key_points_are_not_looked_for_in_more_letters():
    with pytest.raises(ValueError, match=f"300000 letters .* expected at most {LETTERS}"):
        extract(WORD)
    with pytest.raises(ValueError, match=f"300000 letters .* expected at most {contrast.LETTERS}"):
        contrast.near_misses(WORD)


def test_a_reward_takes_no_prompt_of_more_letters_and_says_so_shortly():
    check_prompts(["x" * LONGEST_PROMPT], 1)
    with pytest.raises(ValueError, match="got a prompt of 300000 letters") as error:
        check_prompts([WORD], 1)
    assert len(str(error.value)) < 300


@pytest.mark.parametrize("style", ["openai", "transformers"])
def test_tokens_of_a_word_without_end_are_those_of_its_beginning(style, caplog):
    tokens = clip_tokens(style)
    start = time.perf_counter()
    (ids,) = tokens([WORD])
    assert time.perf_counter() - start < 2 and len(ids) == 77
    assert ids.tolist() == clip_tokens(style)([WORD[:2000]])[0].tolist()
    assert len(caplog.messages[0]) < 1000
    assert tokens(["a red cat"]).tolist() == clip_tokens(style)(["a red cat"]).tolist()


def test_single_marks_quote_up_to_500_letters():
    assert quoted(f"a sign '{'x' * 400}' here")[0].text == "x" * 400
    assert quoted("the sign says 'Open' today")[0].text == "Open"
