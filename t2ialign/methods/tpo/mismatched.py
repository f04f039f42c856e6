"""Prompts that do not fit an image: by the rules of contrasts, from a language model, or from a file.

Text preference optimisation sets an image's own prompt against them (arXiv 2509.25771). What a caption got is
kept in a journal, so that nothing is asked twice.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from difflib import SequenceMatcher
from pathlib import Path

from rewards.text.contrast import KINDS, asked, near_misses, read_sets, sift
from t2ialign.io import jsonl

PRINCIPLES: dict[str, tuple[str, ...]] = {
    "content": ("number", "object", "negation"),
    "attribute": ("colour", "attribute"),
    "spatial": ("relation",),
    "context": ("style",),
}
"""What a mismatched prompt may change -> the rules that change it."""
MEANINGS = {
    "content": "which things are there, how many, and what they are",
    "attribute": "a colour, material, texture or other quality",
    "spatial": "an arrangement, a relation, or a motion",
    "context": "the background, weather, light, time, place or style",
}
"""The same, as a language model is told."""
INSTRUCTION = """Here is the caption of an image:

{{prompt}}

Write {{count}} other captions, one a line, without numbering or remarks. Each must be wrong for that image: \
change one thing, which is {principles}. Change at most {edits} words, keep length, style and grammar, do \
not rephrase, and do not merely leave something out."""
ANY = 8
"""Words that a language model may change where no limit is set."""

Source = Callable[[str], list[str]]
"""A caption -> prompts that do not fit its image, best first."""


def by_rules(principles: Sequence[str]) -> Source:
    """Near misses by the rules of these principles, kinds taking turns; [] where no rule applies."""
    kinds = [kind for kind in KINDS if any(kind in PRINCIPLES[name] for name in principles)]
    return lambda prompt: near_misses(prompt, kinds=kinds)


def by_model(
    complete: Callable[[str], str], principles: Sequence[str], *, count: int, max_edits: int | None
) -> Source:
    """What a language model writes, told of the principles and of how many words it may change."""
    told = {
        "principles": " or ".join(MEANINGS[name] for name in principles),
        "edits": max_edits or ANY,
    }
    return asked(complete, count=count, instruction=INSTRUCTION.format(**told))


def by_file(path: Path) -> Source:
    """Those of a JSON file of the form {caption: [prompt, ...]}, without such as the caption entails."""
    sets = read_sets(path)
    return lambda prompt: sift(prompt, sets.get(prompt, []))


def edits(prompt: str, other: str) -> int:
    """How many words differ: the longer side of each replaced, deleted or inserted stretch."""
    first, second = prompt.lower().split(), other.lower().split()
    changes = SequenceMatcher(None, first, second, autojunk=False).get_opcodes()
    return sum(max(b - a, d - c) for kind, a, b, c, d in changes if kind != "equal")


class Mismatched:
    """Mismatched prompts of captions, each caption asked for once; `journal` outlives a kill.

    limit: of a caption. max_edits: words that may differ, None for any number. tokens: what the model reads
    of a text; a prompt of which it reads what it reads of the caption is left out.
    """

    def __init__(
        self,
        source: Source,
        journal: Path,
        *,
        of: Mapping[str, object],
        limit: int,
        max_edits: int | None,
        tokens: Callable[[str], Hashable],
    ) -> None:
        self.source, self.journal, self.limit = source, journal, limit
        self.max_edits, self.tokens = max_edits, tokens
        rows = jsonl.read(journal)
        if rows and rows[0] != of:
            rows = []
        self._known: dict[str, list[str]] = {row["prompt"]: row["others"] for row in rows[1:]}
        if not rows:
            journal.parent.mkdir(parents=True, exist_ok=True)
            jsonl.rewrite(journal, [of])

    def __call__(self, prompt: str) -> list[str]:
        """Up to `limit` prompts, as the source orders them; [] if none is left."""
        if prompt not in self._known:
            near = self._sifted(prompt)[: self.limit]
            row = {"prompt": prompt, "others": near, "edits": [edits(prompt, other) for other in near]}
            jsonl.append(self.journal, [row])
            self._known[prompt] = near
        return self._known[prompt]

    def _sifted(self, prompt: str) -> list[str]:
        """Those within the edits, each read by the model as another text than the caption and the rest."""
        read, sifted = {self.tokens(prompt)}, []
        for other in self.source(prompt):
            tokens = self.tokens(other)
            if tokens not in read and (self.max_edits is None or edits(prompt, other) <= self.max_edits):
                read.add(tokens)
                sifted.append(other)
        return sifted
