"""The token budget, counted by a tokenizer of single letters: marks included, blanks free."""

import pytest

from t2ialign.rewriting.budget import count, shorten
from t2ialign.rewriting.survival import check
from tests.conftest import tiny_tokenizer

TOKENS = tiny_tokenizer()
TEXT = "A cat. It is big. It sleeps."


def test_count_has_the_marks_in():
    assert count(TOKENS, "") == 2
    assert count(TOKENS, "a cat") == 2 + 4
    assert shorten(TOKENS, "x" * 30).fits and not shorten(TOKENS, "x" * 31).fits
    assert shorten(TOKENS, "x" * 31, 33).fits


def test_what_fits_is_left_as_it_is():
    short = shorten(TOKENS, "a  cat", 40)
    assert (short.text, short.dropped, short.lost, short.fits) == ("a  cat", (), (), True)


def test_whole_sentences_go_from_the_end():
    short = shorten(TOKENS, TEXT, 20)
    assert short.text == "A cat. It is big." and short.dropped == ("It sleeps.",) and short.fits
    assert shorten(TOKENS, TEXT, 10).text == "A cat."
    assert shorten(TOKENS, TEXT, 10).dropped == ("It is big.", "It sleeps.")


def test_a_survivor_stays_while_there_is_something_else_to_drop():
    text = "A cat. It is big and grey. No dog."
    short = shorten(TOKENS, text, 16, original="a cat, no dog")
    assert short.text == "A cat. No dog." and short.dropped == ("It is big and grey.",) and not short.lost


def test_a_survivor_goes_last_and_is_named():
    short = shorten(TOKENS, "A cat. No dog.", 9)
    assert short.text == "A cat." and short.fits
    assert [loss.what for loss in short.lost] == ["negation"]


def test_clauses_go_when_no_sentence_can():
    short = shorten(TOKENS, "A cat, on a mat, at night; by a tree.", 14)
    assert short.text == "A cat, on a mat." and short.dropped == ("at night;", "by a tree.") and short.fits


def test_quoted_text_is_never_cut():
    text = 'A sign "Go. Now, go." and then more, more.'
    short = shorten(TOKENS, text, 31)
    assert short.text == 'A sign "Go. Now, go." and then more.'
    assert check(text, short.text) == []
    assert shorten(TOKENS, 'A sign "Go. Now, go."', 5).text == 'A sign "Go. Now, go."'


def test_one_clause_over_the_limit_is_told():
    short = shorten(TOKENS, "x" * 40, 20)
    assert short.text == "x" * 40 and not short.fits and not short.dropped


def test_titles_do_not_end_a_sentence():
    assert shorten(TOKENS, "Mr. Fox. He runs.", 9).text == "Mr. Fox."


def test_a_tokenizer_without_a_limit():
    class Endless:
        model_max_length = int(1e30)

    with pytest.raises(ValueError, match="got a tokenizer without a length limit"):
        shorten(Endless(), "a")
