"""The amount of change by a rewrite: prompts that are left alone, and the three intensities."""

from __future__ import annotations

from dataclasses import dataclass

LONG = 80
"""Words above which a prompt is left alone: it says enough, and more would bury it."""
BYTES_A_WORD = 24
"""Bytes of UTF-8 that count as one word: CLIP's tokenizer makes many tokens of a longer run of letters."""


@dataclass(frozen=True)
class Intensity:
    """The number of words that a rewrite may add, and the sentence that tells a model so."""

    words: int
    instruction: str


INTENSITIES = {
    "light": Intensity(
        15, "Keep the prompt almost as it is: make clear what is vague, in at most 15 more words."
    ),
    "medium": Intensity(
        40,
        "Say how things look and where they are, and end with a sentence on style, in at most 40 more words.",
    ),
    "full": Intensity(
        120,
        "Describe the whole picture, then its parts in their order in space, then details, and end with a "
        "sentence on style, in at most 120 more words.",
    ),
}


def word_count(text: str) -> int:
    """Words of a text, told by the blanks between them."""
    return len(text.split())


def length(text: str) -> int:
    """Words of a text as its limit counts them: a word counts once for every `BYTES_A_WORD` that it starts.

    So languages without blanks, and one word of any length, have a limit too.
    """
    sizes = (len(word.encode("utf-8", "surrogatepass")) for word in text.split())
    return sum(-(-size // BYTES_A_WORD) for size in sizes)


def leave_alone(prompt: str, longest: int = LONG) -> bool:
    """Whether a prompt has a `length` of more than `longest` words and is not rewritten."""
    return length(prompt) > longest


def intensity(name: str) -> Intensity:
    """The intensity of that name. Raises ValueError for another name."""
    if name not in INTENSITIES:
        raise ValueError(f"got intensity {name!r}; expected one of {', '.join(INTENSITIES)}; choose one")
    return INTENSITIES[name]
