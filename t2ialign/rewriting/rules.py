"""A rewriter without a model: it makes clear what a prompt counts, binds and places, and adds what it lacks.

In the order in which a text encoder reads: the prompt first, with its counts, looks and places in words that
stand where they belong, then composition, light, medium and finish, and all of it in 77 tokens of CLIP.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from rewards.towers.clip_tokenizer import POSITIONS, clip_tokenizer
from t2ialign.rewriting.budget import count
from t2ialign.rewriting.clarify import clarify, masked
from t2ialign.rewriting.intensity import intensity
from t2ialign.rewriting.quotes import quoted
from t2ialign.rewriting.style import SLOTS, additions
from t2ialign.rewriting.survival import check
from t2ialign.rewriting.untouched import why_untouched

ADDED = {"light": SLOTS[:0], "medium": SLOTS[:3], "full": SLOTS}
"""The slots that each intensity fills; `light` only makes clear what the prompt says."""
UNCHANGED = "The prompt is left as it is: "
MOST = 2_000
"""Letters of a prompt that the rules read."""
_ENDS = re.compile(r"[\s,;.]+$")


@dataclass(frozen=True)
class Rules:
    """A `Rewriter` whose outputs are in the "tags" convention.

    The same prompt, seed and draw give the same rewrite; another seed or draw chooses other style words where
    several suit. Raises ValueError for an unknown intensity.
    """

    strength: str = "medium"
    seed: int = 0
    draw: int = 0

    def __post_init__(self) -> None:
        intensity(self.strength)

    def write(self, prompts: Sequence[str], *, attempt: int) -> list[str]:
        """B prompts -> B outputs; `attempt` changes nothing."""
        written = (explain(prompt, self.strength, f"{self.seed}|{self.draw}") for prompt in prompts)
        return [f"<think>{thought}</think><answer>{answer}</answer>" for thought, answer in written]


def explain(prompt: str, strength: str = "medium", key: str = "0|0") -> tuple[str, str]:
    """(why each change was made, the rewrite); a prompt that needs nothing comes back as it is.

    `key` chooses among style words that suit. Raises ValueError for an unknown intensity.
    """
    intensity(strength)
    if len(prompt) > MOST:
        return f"{UNCHANGED}it has more than {MOST} letters, and the rules read no more.", prompt
    if why := why_untouched(prompt):
        return UNCHANGED + why + ".", prompt
    text, reasons = prompt, []
    if _tokens(prompt) > POSITIONS and (shorter := _without_repeats(prompt)) != prompt:
        text = shorter
        reasons.append("It is longer than the encoder reads, so what it says twice is said once.")
    for change in clarify(text):
        if _fits(change.text, prompt):
            text = change.text
            reasons.append(change.why)
    for addition in additions(masked(text), ADDED[strength], f"{key}|{prompt}"):
        longer = _with(text, addition.words)
        if _fits(longer, prompt):
            text = longer
            reasons.append(addition.why)
    if lost := check(prompt, text):
        return UNCHANGED + f"a rewrite would lose {lost[0].evidence!r}.", prompt
    if not reasons:
        return UNCHANGED + "the rules find nothing in it that they could say more clearly.", prompt
    return " ".join(reasons), text


def _with(text: str, words: str) -> str:
    """The words after a comma in place of the full stop, or after the mark that ends the text."""
    body = _ENDS.sub("", text)
    return f"{body} {words}" if body[-1:] in "!?:\u2026" else f"{body}, {words}"


def _without_repeats(text: str) -> str:
    """A text without the parts between commas that it has had before; one with quotations as it is."""
    if quoted(text):
        return text
    parts: list[str] = []
    seen: set[str] = set()
    for part in text.split(","):
        if not part.strip() or part.strip().lower() not in seen:
            parts.append(part)
        seen.add(part.strip().lower())
    return ",".join(parts)


def _fits(text: str, prompt: str) -> bool:
    """Whether the text is no longer than the encoder reads, or than the prompt was."""
    size = _tokens(text)
    return size <= POSITIONS or size <= _tokens(prompt)


def _tokens(text: str) -> int:
    return count(_tokenizer(), text)


@cache
def _tokenizer() -> Any:
    return clip_tokenizer()
