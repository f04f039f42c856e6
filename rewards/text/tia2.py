"""The construction of TIA2's contrastive prompts: counting by rule, composition by a language model too.

Recovered from the published sets, which come without code: Kim et al., "Confidence-aware Reward Optimization
for Fine-tuning Text-to-Image Models", ICLR 2024, https://github.com/kykim0/TextNorm. The third set,
comprehensive, is a language model's work throughout: read it with `rewards.text.contrast.read_sets`.
"""

from __future__ import annotations

from itertools import combinations

from rewards.text.contrast_rules import other_numbers
from rewards.text.english import counted, plural

OBJECTS = (
    *("airplane", "apple", "automobile", "bird", "book", "cake", "carrot", "cat", "chair", "cup"),
    *("deer", "dog", "fork", "frog", "horse", "laptop", "microwave", "orange", "ship", "suitcase"),
    *("teddy bear", "toaster", "truck", "umbrella", "vase"),
)
"""The 25 nouns of the counting and composition prompts."""

PHOTO, CARTOON = "a realistic photo of", "a cartoon drawing of"
MOST = 6
"""The largest number that counting asks for."""

RULE_MADE = 12
"""The first entries of every composition set, always these; the 13th is a rule that a model applied."""


def counting_prompt(noun: str, number: int) -> str:
    """The counting prompt of a singular noun and a number, such as "a realistic photo of two cats"."""
    return f"{PHOTO} {counted(number, noun)}"


def counting(noun: str, number: int) -> list[str]:
    """The contrasts of a counting prompt: both neighbouring numbers and one beyond each, where positive."""
    return [counting_prompt(noun, other) for other in other_numbers(number)]


def counting_sets() -> dict[str, list[str]]:
    """All 150 counting prompts with their contrasts, in the order of the published file."""
    return {
        counting_prompt(noun, number): counting(noun, number)
        for number in range(1, MOST + 1)
        for noun in OBJECTS
    }


def composition_prompt(first: str, second: str) -> str:
    """The composition prompt of two singular nouns, such as "a realistic photo of a cat and a dog"."""
    return f"{PHOTO} {counted(1, first)} and {counted(1, second)}"


def composition(first: str, second: str) -> list[str]:
    """The 13 contrasts of a composition prompt that follow a rule; the published sets have 19 more.

    One noun left out, numbers from one to three (some without "and", as published), one noun like the other,
    and a cartoon of several. Beyond these a model wrote prompts about things of the same kind.
    """
    one, other = counted(1, first), counted(1, second)
    firsts, seconds = plural(first), plural(second)
    scenes = [
        *(one, other),
        *(f"two {firsts} and {other}", f"{one} and two {seconds}", f"two {firsts} two {seconds}"),
        *(f"three {firsts} and {other}", f"{one} and three {seconds}", f"three {firsts} two {seconds}"),
        *(f"two {firsts} and three {seconds}", f"three {firsts} three {seconds}"),
        *(f"{one}-like {second}", f"{other}-like {first}"),
    ]
    return [*(f"{PHOTO} {scene}" for scene in scenes), f"{CARTOON} two {firsts} and three {seconds}"]


def composition_sets() -> dict[str, list[str]]:
    """All 300 composition prompts with the contrasts of `composition`, in the order of the published file."""
    return {
        composition_prompt(first, second): composition(first, second)
        for first, second in combinations(OBJECTS, 2)
    }
