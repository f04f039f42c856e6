"""Key points judged in writing, by PromptEnhancer's protocol: a call each, reason first, then a word."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import Tensor

from rewards.keypoints.evaluator_questions import REMINDER, written
from rewards.keypoints.verdicts import Checker, PromptPoint, Verdict
from rewards.vlm.base import Judge

_WORD = re.compile(r"\b(accept|reject)(?:s|ed)?\b", re.IGNORECASE)
CUT = "(cut off)"
"""The end of a reason whose answer was cut off by the token limit."""


def read(answer: str) -> tuple[float | None, str]:
    """A written verdict -> (1 for accept, 0 for reject, None for neither; the reason before it).

    The last of these words decides. Of an answer with neither, the reason is the answer.
    """
    line = " ".join(answer.split())
    words = list(_WORD.finditer(line))
    if not words:
        return None, line
    reason = line[: words[-1].start()].rstrip(" *_#:\"'(")
    return float(words[-1][1].lower() == "accept"), reason


class Written(Checker):
    """1 or 0 a key point; `retried` and `unreadable` count answers so far.

    An answer without either word, or that the limit of `tokens` broke off, is asked for once more with a
    reminder; its match is None if that fails too.
    """

    def __init__(self, judge: Judge, *, tokens: int = 512) -> None:
        super().__init__()
        self.judge, self.tokens = judge, tokens
        self.retried = self.unreadable = 0

    def check(self, images: Tensor, pairs: Sequence[Sequence[PromptPoint]]) -> list[list[Verdict]]:
        """images (B, 3, H, W) in [0, 1] -> verdicts of 0, 1 or None. Raises ValueError as the judge does."""
        flat = [(row, one) for row, pairs_of_image in enumerate(pairs) for one in pairs_of_image]
        verdicts: list[tuple[float | None, str]] = [(None, "") for _ in flat]
        missing = list(range(len(flat)))
        for reminder in ("", REMINDER):
            self.retried += len(missing) if reminder else 0
            questions = [written(*flat[place][1]) + reminder for place in missing]
            rows = [flat[place][0] for place in missing]
            cut: set[int] = set()
            answers = (
                self.judge.write(images, questions, rows, tokens=self.tokens, cut=cut.add) if missing else []
            )
            for j, (place, answer) in enumerate(zip(missing, answers, strict=True)):
                verdicts[place] = (None, " ".join([*answer.split(), CUT])) if j in cut else read(answer)
            missing = [place for place in missing if verdicts[place][0] is None]
        self.unreadable += len(missing)
        left = iter(verdicts)
        return [[Verdict(point, *next(left)) for _, point in pairs_of_image] for pairs_of_image in pairs]
