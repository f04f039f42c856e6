"""The rewriter by rules: what it makes clear, what it adds, what it never touches, what survives."""

import os
import re
from itertools import islice
from pathlib import Path

import pytest

from rewards.towers.clip_tokenizer import POSITIONS
from scripts.experiments.readings.rules_read import held_out, prompts
from t2ialign.rewriting import rules
from t2ialign.rewriting.budget import count
from t2ialign.rewriting.clarify import Change
from t2ialign.rewriting.intensity import INTENSITIES, word_count
from t2ialign.rewriting.language import drawn
from t2ialign.rewriting.parse import parse
from t2ialign.rewriting.rules import UNCHANGED, Rules, _tokenizer, explain
from t2ialign.rewriting.survival import check

DATA = Path(os.environ.get("T2IALIGN_DATA", "../shared/data"))
published = pytest.mark.skipif(
    not (DATA / "unigenbench/data/test_prompts_en.csv").is_file(),
    reason=f"no prompts in {DATA}; set T2IALIGN_DATA",
)


def clear(prompt):
    """What the rules make clear; the intensity `light` adds no style."""
    return explain(prompt, "light")[1]


@pytest.mark.parametrize(
    ("prompt", "text"),
    [
        ("a photo of three dogs", "a photo of three dogs side by side"),
        ("Two cars on the street.", "Two cars side by side on the street."),
        ("A pair of small dogs", "Two small dogs side by side"),
        ("12 apples on a table", "twelve apples on a table"),
        ("a red cat and a blue bowl", "a red cat on the left and a blue bowl on the right"),
        ("two cats and a dog", "two cats on the left and a dog on the right"),
        ("a bench and a vase", "a bench and a vase side by side"),
        ("two cats, a dog and a bird", "two cats, a dog and a bird, side by side"),
        ("a dog left of a cat", "a dog on the left and a cat on the right"),
        ("A dog to the right of a cat.", "A dog on the right and a cat on the left."),
        ("a tv below a cow", "a tv at the bottom, below a cow at the top"),
        ("a cup in front of a tv", "a cup in the foreground, in front of a tv in the background"),
        ("a cup behind a tv", "a cup in the background, behind a tv in the foreground"),
        ("a cup left of a box made of felt", "a cup on the left and a box made of felt on the right"),
        ("a cat left of a dog, oil painting", "a cat on the left and a dog on the right, oil painting"),
        ("A blue colored dog.", "A blue dog."),
        ("Please draw a picture: a fox in a coat", "a fox in a coat"),
        ("Generated image: a fox in a coat", "a fox in a coat"),
        ("Create a picture of a fox in a coat", "a fox in a coat"),
        ("Picture generation: a fox in a coat", "a fox in a coat"),
    ],
)  # fmt: skip
def test_counts_looks_and_places_are_spelled_out(prompt, text):
    thought, rewritten = explain(prompt, "light")
    assert rewritten == text and thought and not thought.startswith(UNCHANGED)
    assert clear(text) == text  # nothing grows
    assert check(prompt, text) == []


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat", "a pair of glasses", "a man and a dog", "a cat on top of a dog", "two women hugging",
        "three women in a cafe", "a lamp on the right side of a desk", "a dog and a cat chasing a ball",
        "seven apples", "The Two Towers", "photo of the Fab Four", "concept art, portrait, two swords",
        "an orange and black cat", "a cat and a dog, hugging", "a room without two chairs",
        "two cars parked side by side", "a gold colored ring", "six people at a table", "a 1950s car",
        'a sign "three dogs"', 'a sign "a pair of  dogs left of a cat."', 'a poster "12 apples and a cat"',
    ],
)  # fmt: skip
def test_what_is_clear_or_not_understood_is_not_touched(prompt):
    assert clear(prompt) == prompt


@pytest.mark.parametrize(
    ("prompt", "why"),
    [
        ("a (red:1.3) cat", "a weight"),
        ("((two dogs)) and a cat", "a weight"),
        ("two dogs++ on grass", "a weight"),
        ("two dogs <lora:fur:0.8>", "a LoRA"),
        ("two dogs BREAK a cat", "BREAK"),
        ("a dog AND a cat", "BREAK or AND"),
        ("two {red|blue} dogs", "alternatives"),
        ("a [cat:dog:0.5] on a bed", "alternatives"),
        ("a dog\nNegative prompt: two cats", "a negative prompt"),
        ("a red car --ar 16:9", "an option"),
        ("1girl, solo, two cats", "tags"),
        ("三只猫 没有狗", "not in English"),
        ("zwei Hunde und eine Katze", "not in English"),
        ("un chat noir et un chien dans le jardin", "not in English"),
        ("dos perros con una pelota", "not in English"),
        ("два кота", "not in English"),
    ],
)
def test_markup_and_other_languages_are_left_alone_with_a_note(prompt, why):
    thought, text = explain(prompt, "full")
    assert text == prompt and thought.startswith(UNCHANGED) and why in thought


@pytest.mark.parametrize(
    ("prompt", "unwanted"),
    [
        ("a castle at night", r"golden|natural|soft l"),
        ("a castle, sunny day", r"light|hour"),
        ("a creepy forest", r"soft|natural|golden|studio"),
        ("portrait of a woman", r"shot|close up|head and"),
        ("a photo of a cat", r"photograph|painting|art\b|illustration"),
        ("a dog in space", r"golden|natural|studio|soft"),
        ("a red car in the snow, wide shot", r"close up|centered|wide angle"),
    ],
)
def test_nothing_is_added_against_what_the_prompt_says(prompt, unwanted):
    for draw in range(12):
        text = explain(prompt, "full", f"0|{draw}")[1]
        assert text.startswith(prompt) and text != prompt
        assert not re.search(unwanted, text[len(prompt) :])


@pytest.mark.parametrize(
    "prompt",
    [
        "a cat, oil painting", "a black and white street", "a minimalist chair", "a chair, no background",
        "logo of a fox", "an anime girl", "a dog in the style of Monet", "a house by Frank Lloyd Wright",
        "pikachu in a forest", "a fairy by arthur rackham", "picture by monet", "cat, mouse, cheese, rain",
        "Emma Watson", "inspiration", "a cat, soft lighting, close up, photo, sharp focus",
    ],
)  # fmt: skip
def test_a_prompt_with_its_own_style_or_without_a_known_noun_comes_back(prompt):
    thought, text = explain(prompt, "full")
    assert text == prompt and thought.startswith(UNCHANGED)


def test_kinds_get_their_own_words_and_draws_differ():
    def words(prompt):
        texts = {explain(prompt, "medium", f"0|{draw}")[1] for draw in range(24)}
        return {word for text in texts for word in text.removeprefix(prompt + ", ").split(", ")}

    assert words("a woman") >= {"medium shot", "close up portrait", "studio lighting", "photo"}
    assert words("a man riding a horse") >= {"wide shot", "full body shot"}
    assert words("a mountain lake") >= {"wide angle", "golden hour", "natural light"}
    assert words("a bowl of soup") <= {"soft lighting", "cinematic lighting", "photograph", "photo"}
    assert words("a pizza") >= {"food photography", "close up"}
    assert words("a dragon") >= {"digital painting", "concept art", "illustration", "dramatic lighting"}
    assert words('a sign that says "Go"') >= {"close up"}


def test_the_thought_says_why_and_for_which_words():
    thought, text = explain("a red car and a blue car")
    added = text.removeprefix("a red car on the left and a blue car on the right, ").split(", ")
    assert "neither takes the looks of the other" in thought
    assert len(added) == 2 and all(f'"{words}" suits an object' in thought for words in added)
    assert "It names no light" in thought and "It names no medium" in thought


@pytest.mark.parametrize("strength", INTENSITIES)
def test_no_more_words_than_allowed_and_no_more_tokens_than_are_read(strength):
    long = "a photo of a red car and a blue car " + "in the rain " * 25
    for prompt in ("a dragon over a castle", "two cats and a dog", long, "a cat. " * 20, "word " * 76):
        text = explain(prompt, strength)[1]
        assert word_count(text) - word_count(prompt) <= INTENSITIES[strength].words
        assert count(_tokenizer(), text) <= max(POSITIONS, count(_tokenizer(), prompt))


def test_over_the_budget_only_what_is_said_twice_goes():
    once = "a castle, " + ", ".join(f"tower number {place}" for place in range(30))
    thought, text = explain(f"{once}, tower number 3, A castle")
    assert text == once and "said once" in thought
    assert explain(once)[1] == once
    assert explain("a castle, red roof, red roof")[1].startswith("a castle, red roof, red roof")


def test_outputs_are_parsed_and_depend_on_seed_and_draw():
    (output,) = Rules("light").write(["three dogs"], attempt=0)
    parsed = parse(output, "three dogs")
    assert parsed.fallback is None and parsed.answer == "three dogs side by side"
    assert Rules("light").write(["three dogs"], attempt=7) == [output]
    assert drawn(Rules(seed=3), 2) == Rules(seed=3, draw=2)
    texts = {
        Rules(seed=seed, draw=draw).write(["a lake"], attempt=0)[0] for seed in (0, 1) for draw in (0, 1, 2)
    }
    assert len(texts) > 2
    with pytest.raises(ValueError, match="got intensity 'much'"):
        Rules("much")
    with pytest.raises(ValueError, match="got intensity 'much'"):
        explain("a cat", "much")


def test_what_a_rewrite_would_lose_keeps_the_prompt(monkeypatch):
    monkeypatch.setattr(rules, "clarify", lambda text: [Change("a dog", "Shorter.")])
    thought, text = explain("three dogs, no cat")
    assert text == "three dogs, no cat" and thought == UNCHANGED + "a rewrite would lose 'three dogs'."
    spaced = "1 9 5 0 s poster"  # as DiffusionDB writes years: a text survives itself
    assert check(spaced, spaced) == []


def test_the_tokenizer_takes_each_digit_for_a_word_and_the_docs_show_what_is_printed():
    assert count(_tokenizer(), "12 dogs") == count(_tokenizer(), "twelve dogs") + 1
    docs = (Path(__file__).parents[2] / "docs" / "rewrite.md").read_text(encoding="utf-8")
    shown = docs.partition("### The rules")[2].split("```")[1].splitlines()
    prompts_shown = re.findall(r'"([^"]+)"', shown[1])
    assert [explain(prompt)[1] for prompt in prompts_shown] == shown[2:]


def test_an_end_mark_or_a_quotation_at_the_end_stays():
    assert explain("Is this a cat?")[1].startswith("Is this a cat? ")
    assert explain('A sign says "Go, now."')[1].startswith('A sign says "Go, now.", ')


@pytest.mark.rest
@published
def test_published_prompts_survive_twice_and_do_not_grow():
    """Every 4th prompt that the rules were made with: all survive, and a second rewrite adds nothing."""
    seen = [prompt for prompt in prompts(DATA).values() if not held_out(prompt)]
    assert len(seen) > 10_000
    for prompt in islice(seen, 0, None, 4):
        text = explain(prompt)[1]
        assert check(prompt, text) == [], prompt
        assert explain(text)[1] == text, prompt
        assert count(_tokenizer(), text) <= max(POSITIONS, count(_tokenizer(), prompt))
