"""Contrastive prompts: near misses of a prompt by rule or by a language model, and published sets.

A near miss differs from the prompt in one thing, so that a picture right for the one is wrong for the other.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import zip_longest
from pathlib import Path

from rewards.text.contrast_meaning import canonical, entailed
from rewards.text.contrast_rules import RULES
from rewards.text.contrast_text import scene
from rewards.text.contrast_words import ENGLISH, Words
from rewards.text.length import too_long

KINDS = tuple(RULES)
LETTERS = 2_000
"""Letters of a prompt that the rules read: their time grows with the square of its length."""
LIMIT = 32
"""Near misses of a prompt at most; TIA2's largest sets have as many."""

INSTRUCTION = """Here is a prompt for an image generator:

{prompt}

Write {count} other prompts, one a line, without numbering or remarks. Each changes exactly one thing: the \
subject, a colour or other attribute, a number, a spatial relation, an action, the scene, the style, or text \
to be shown. A picture that is right for the prompt above must be wrong for every one of yours, so do not \
rephrase it and do not merely leave something out. Keep its sentence form and its length."""
"""The instruction that `asked` gives to the language model."""


def near_misses(
    prompt: str,
    *,
    kinds: Sequence[str] = KINDS,
    words: Words = ENGLISH,
    limit: int | None = LIMIT,
    tokens: Callable[[str], int] | None = None,
    max_tokens: int | None = None,
) -> list[str]:
    """Up to `limit` prompts that each change one thing, the kinds taking turns; [] if no rule applies.

    kinds: some of number, colour, object, relation, attribute, negation and style. What the prompt entails,
    what says the same, and what is over `max_tokens` by the counter `tokens` is dropped. No limit: None.
    Raises ValueError for an unknown kind, and for a prompt of more than `LETTERS`.
    """
    if wrong := too_long(prompt, LETTERS):
        raise ValueError(wrong)
    if unknown := [kind for kind in kinds if kind not in RULES]:
        raise ValueError(f"got kind {unknown[0]!r}; expected {', '.join(KINDS)}; drop it")
    by_kind = [RULES[kind](prompt, words) for kind in kinds]
    turns = [variant for turn in zip_longest(*by_kind) for variant in turn if variant and not _twice(variant)]
    return sift(prompt, turns, words=words, limit=limit, tokens=tokens, max_tokens=max_tokens)


def _twice(variant: str) -> bool:
    """Whether it reads "a cat and a cat", which nobody writes for two cats."""
    parts = scene(variant)
    return parts is not None and parts.link == "and" and canonical(parts.first) == canonical(parts.second)


def sift(
    prompt: str,
    variants: Iterable[str],
    *,
    words: Words = ENGLISH,
    limit: int | None = None,
    tokens: Callable[[str], int] | None = None,
    max_tokens: int | None = None,
) -> list[str]:
    """The variants that can serve as contrasts, in order: not entailed, not said twice, not over-long.

    A variant that is entailed by the prompt is true of its images too. `tokens` counts the tokens of a
    text as the scorer's text encoder sees it. Raises ValueError for a limit without a counter.
    """
    if (tokens is None) != (max_tokens is None):
        raise ValueError("got one of tokens and max_tokens; expected a counter and its limit; pass both")
    sifted: list[str] = []
    seen = {canonical(prompt)}
    for variant in variants:
        form = canonical(variant)
        if not form or form in seen or entailed(prompt, variant, words):
            continue
        if tokens is not None and max_tokens is not None and tokens(variant) > max_tokens:
            continue
        seen.add(form)
        sifted.append(variant)
        if len(sifted) == limit:
            break
    return sifted


def asked(
    complete: Callable[[str], str], *, count: int = 8, instruction: str = INSTRUCTION
) -> Callable[[str], list[str]]:
    """A source of contrasts that asks a language model: `complete` gets the request, gives the answer.

    The answer may be lines, bulleted or numbered, or a JSON list; it is sifted like the rules' own. Ask once
    and keep what comes: models do not answer alike twice.
    """

    def contrast(prompt: str) -> list[str]:
        answer = complete(instruction.format(prompt=prompt, count=count))
        return sift(prompt, _lines(answer), limit=count)

    return contrast


_BULLET = re.compile(r"^\s*(?:[-*+]|\(?\d{1,2}[.):])\s+")
_FENCE = re.compile(r"^\s*```\w*\s*$", re.MULTILINE)


def _lines(answer: str) -> list[str]:
    """The prompts of a model's answer; a line that ends with a colon announces them."""
    text = _FENCE.sub("", answer).strip()
    if text.startswith("["):
        items = json.loads(text)
        return [item.strip() for item in items if isinstance(item, str)]
    lines = (_BULLET.sub("", line).strip() for line in text.splitlines())
    return [line.strip("\"'").strip() for line in lines if line and not line.endswith(":")]


def read_sets(path: str | Path) -> dict[str, list[str]]:
    """Prompt -> contrastive prompts, from a JSON file of that form such as TIA2's prompt_set_*.json.

    Nothing is dropped: a published set is used as published. Raises ValueError for a file of another form.
    Source: https://github.com/kykim0/TextNorm/tree/main/prompts
    """
    file = Path(path)
    try:
        sets = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"got {file} ({error}); expected JSON of prompt to list; check the path") from error
    good = isinstance(sets, dict) and all(
        isinstance(rivals, list) and all(isinstance(rival, str) for rival in rivals)
        for rivals in sets.values()
    )
    if not good:
        raise ValueError(f"got {file} of another form; expected {{prompt: [prompt, ...]}}; rewrite it")
    return dict(sets)
