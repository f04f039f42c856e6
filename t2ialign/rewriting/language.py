"""A rewriter over a language model, on this machine or behind an endpoint."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

from rewards.llm.base import Heard, Writer
from t2ialign.rewriting.instructions import Preset
from t2ialign.rewriting.parse import CUT
from t2ialign.rewriting.rewriter import Rewriter
from t2ialign.rewriting.rules import Rules

AGAIN = 0.7
"""The temperature of a second try or draw that would otherwise repeat a greedy output."""


@dataclass(frozen=True)
class Language:
    """A `Rewriter` that asks a writer in the words of a preset.

    The first try of draw 0 has the preset's temperature, or `temperature`; later tries and other draws are
    sampled. What is sampled depends on the seed, the draw, the try and the prompt, not on what is asked
    beside it, so that a run that was killed goes on with the same texts. `heard` gets the pieces of a
    text as they are written.
    """

    writer: Writer
    preset: Preset
    strength: str = "medium"
    temperature: float | None = None
    seed: int = 0
    draw: int = 0
    heard: Heard | None = None

    def write(self, prompts: Sequence[str], *, attempt: int) -> list[str]:
        """B prompts -> B outputs. Raises ValueError as the writer does."""
        warmth = self.preset.temperature if self.temperature is None else self.temperature
        cut: set[int] = set()
        outputs = self.writer.write(
            [self.preset.messages(prompt, self.strength) for prompt in prompts],
            tokens=self.preset.tokens,
            temperature=warmth if attempt == self.draw == 0 else warmth or AGAIN,
            seed=[self._seed(prompt, attempt) for prompt in prompts],
            heard=self.heard,
            cut=cut.add,
        )
        return [output + CUT if row in cut else output for row, output in enumerate(outputs)]

    def _seed(self, prompt: str, attempt: int) -> int:
        """31 bits, which every endpoint takes."""
        key = f"{self.seed}|{self.draw}|{attempt}|{prompt}".encode("utf-8", "surrogatepass")
        return int.from_bytes(hashlib.blake2b(key, digest_size=4).digest()) >> 1


def drawn(rewriter: Rewriter, draw: int) -> Rewriter:
    """The same rewriter for another draw of every prompt; one that draws nothing is as it was."""
    return replace(rewriter, draw=draw) if isinstance(rewriter, Language | Rules) else rewriter
