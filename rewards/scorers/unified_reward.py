"""UnifiedReward's point mode: a judge writes a verdict on image and caption that ends in "Final Score: x", 1
to 5.

Wang et al., "Unified Reward Model for Multimodal Understanding and Generation", 2025; point mode is that of
CodeGoat24/UnifiedReward-*, the Think variant compares pairs only. The instruction here is in our words: for
the exact numbers of a released checkpoint pass its own text as `template`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rewards.base import Reward
from rewards.vlm.base import Judge, UnreadableAnswer
from rewards.vlm.choose import judge

NAMES: dict[str, dict[str, str]] = {"unified-reward": {"weights": "CodeGoat24/UnifiedReward-qwen-7b"}}
TABLE = {
    "unified-reward": (
        "CodeGoat24/UnifiedReward-qwen-7b | the VLM's own | in an instruction | 1 to 5 | no | MIT"
    ),
}

TEMPLATE = (
    "The image was generated from a caption. Judge two things: does it show what the caption says (objects, "
    "their attributes and relations), and how good does it look (clear, detailed, natural in colour, "
    "pleasing)?\nList the key elements of the caption, one a line, as 'element (type): value', where value "
    "is 1 if the image shows it and 0 if not. End with a line 'Final Score: x', where x is a number from 1 "
    "to 5.\nText Caption: [{prompt}]"
)
REMINDER = "\nThe last line of the answer must be 'Final Score: x' with one number x."
LOW, HIGH = 1.0, 5.0

_SCORE = re.compile(r"final\s+score[\s*_]*[:=][\s*_(\[]*(\d+(?:\.\d+)?)(?![\d.]*\d|\s*-\s*\d)", re.IGNORECASE)


def parse(answer: str) -> float | None:
    """The number after the last "Final Score:", in [1, 5]; None where there is no such number."""
    numbers = _SCORE.findall(answer)
    value = float(numbers[-1]) if numbers else None
    return value if value is not None and LOW <= value <= HIGH else None


class PointScore(Reward):
    """The score a judge writes, 1 to 5; not differentiable. `retried` and `unreadable` count answers so far.

    An answer without a score is asked for once more with a reminder; UnreadableAnswer, a ValueError, if that
    fails too: never a zero.
    """

    differentiable = False

    def __init__(self, judge: Judge, *, template: str = TEMPLATE, tokens: int = 1024) -> None:
        super().__init__()
        if "{prompt}" not in template:
            raise ValueError(f"got template {template[:60]!r}; expected one with {{prompt}} in it; add it")
        self.judge, self.template, self.tokens = judge, template, tokens
        self.retried = self.unreadable = 0

    def score(self, images: Tensor, prompts: list[str]) -> Tensor:
        """images (B, 3, H, W) in [0, 1], B prompts -> (B,) in [1, 5]. Raises UnreadableAnswer, naming it."""
        questions = [self.template.replace("{prompt}", prompt) for prompt in prompts]
        scores: dict[int, float] = {}
        missing = list(range(len(prompts)))
        for reminder in ("", REMINDER):
            self.retried += len(missing) if reminder else 0
            repeated = [questions[row] + reminder for row in missing]
            answers = self.judge.write(images, repeated, missing, tokens=self.tokens) if missing else []
            scores |= _readable(missing, answers)
            bad = {row: text for row, text in zip(missing, answers, strict=True) if row not in scores}
            missing = list(bad)
        values = [scores.get(row, math.nan) for row in range(len(prompts))]
        result = torch.tensor(values, dtype=torch.float32, device=images.device)
        if missing:
            self.unreadable += len(missing)
            wanted = (
                "asked twice; expected 'Final Score: x' with x from 1 to 5; "
                f"raise tokens={self.tokens} or change model"
            )
            shown = {row: f"got {_shown(text)}" for row, text in bad.items()}
            raise UnreadableAnswer(
                f"{shown[missing[0]]} for {len(missing)} of {len(prompts)} images, {wanted}",
                {row: f"{text}, {wanted}" for row, text in shown.items()},
                result,
                self,
            )
        return result


def _readable(rows: Sequence[int], answers: Sequence[str]) -> dict[int, float]:
    parsed = {row: parse(text) for row, text in zip(rows, answers, strict=True)}
    return {row: value for row, value in parsed.items() if value is not None}


def _shown(answer: str) -> str:
    """The end of an answer, where the score should be, on one line."""
    line = " ".join(answer.split())
    return repr(line if len(line) <= 120 else f"... {line[-120:]}")


def build(
    *,
    weights: str | None = None,
    url: str | None = None,
    template: str | None = None,
    tokens: int = 1024,
    towers: dict[str, Any] | None = None,
    **options: Any,
) -> PointScore:
    """Point scores of a local model or the one served as `weights` at `url`; `template` is a text or a file
    of it.

    `options` are those of `vlm.local_judge` or `vlm_endpoint.Endpoint`. Raises ValueError as they do.
    """
    text = template or TEMPLATE
    if "{prompt}" not in text and Path(text).is_file():
        text = Path(text).read_text(encoding="utf-8")
    return PointScore(judge(weights, url, towers, **options), template=text, tokens=tokens)
