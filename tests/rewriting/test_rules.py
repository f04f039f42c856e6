"""The rewriter by rules: what it adds, what it never touches, and that its own check passes it."""

import os
from pathlib import Path

import pytest

from t2ialign.rewriting.intensity import INTENSITIES, word_count
from t2ialign.rewriting.parse import parse
from t2ialign.rewriting.rules import CLOSING, Rules, explain
from t2ialign.rewriting.survival import check
from t2ialign.rewriting.survival_rates import published_pairs

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
published = pytest.mark.skipif(
    not (DATA / "unigenbench/data/test_prompts_en.csv").is_file(),
    reason=f"no pairs in {DATA}; set T2IALIGN_DATA",
)


def added(prompt, strength="medium"):
    """The sentences between the prompt and the closing one."""
    thought, text = explain(prompt, strength)
    assert "style: " + strength in thought
    closing = text.rindex("Everything asked for")
    return text[:closing].strip()


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a cat", "a cat."),
        ("  a\n cat ", "a cat."),
        ("Is this a cat?", "Is this a cat?"),
        ("a photo of three dogs", "a photo of three dogs. There are exactly three dogs."),
        ("A pair of small dogs", "Two small dogs. There are exactly two small dogs."),
        ("a pair of glasses", "a pair of glasses."),
        ("a dog left of a cat", "a dog left of a cat. The dog is to the left of the cat."),
        ("three dogs under a table", "three dogs under a table. There are exactly three dogs. "
         "The three dogs are under the table."),
        ("a red stop sign", "a red stop sign. The stop sign is red."),
        ("a red cat and a blue cat", "a red cat and a blue cat."),
        ("a black and white dog", "a black and white dog."),
        ("a man with no red hat", "a man with no red hat."),
        ("a room without two chairs", "a room without two chairs."),
        ("a dog and a cat", "a dog and a cat."),
        ('a sign "two red cats"', 'a sign "two red cats".'),
        ('a sign "a pair of  dogs."', 'a sign "a pair of dogs."'),
    ],
)  # fmt: skip
def test_added_sentences(prompt, text):
    assert added(prompt) == text


def test_the_thought_says_which_rules_fired():
    thought, _ = explain("a pair  of red cars above a bed")
    for part in ("blanks", "pair: two", "count: There are exactly two red cars.", "place:", "colour:"):
        assert part in thought


def test_closing_names_the_medium():
    assert explain("an oil painting of a cat", "medium")[1].endswith("all of it is a painting.")
    assert explain("a picture of a cat", "full")[1].endswith("all of it keeps to one style.")
    assert explain("a cat", "light")[1].endswith(CLOSING["light"])


@pytest.mark.parametrize("strength", INTENSITIES)
def test_no_more_words_than_allowed(strength):
    prompt = (
        "two red cars, three blue birds, four green apples, five white chairs, six black dogs and a pink cat"
    )
    _, text = explain(prompt, strength)
    assert 0 < word_count(text) - word_count(prompt) <= INTENSITIES[strength].words


def test_outputs_are_parsed_by_their_convention():
    (output,) = Rules("light").write(["three dogs"], attempt=0)
    parsed = parse(output, "three dogs")
    assert parsed.fallback is None and parsed.answer.startswith("three dogs. There are exactly three dogs.")
    assert Rules("light").write(["three dogs"], attempt=7) == [output]
    with pytest.raises(ValueError, match="got intensity 'much'"):
        Rules("much")


@pytest.mark.rest
@published
def test_every_published_prompt_survives():
    prompts = [text for pair in published_pairs(DATA) for text in (pair.prompt, pair.rewrite)]
    assert len(prompts) == 2 * 1153
    outputs = Rules("medium").write(prompts, attempt=0)
    answers = [parse(output, prompt) for output, prompt in zip(outputs, prompts, strict=True)]
    assert {parsed.fallback for parsed in answers} == {None}
    lost = [prompt for prompt, parsed in zip(prompts, answers, strict=True) if check(prompt, parsed.answer)]
    assert lost == []
