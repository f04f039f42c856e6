"""Key points judged by how likely a vision-language model is to say yes: a continuous match."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rewards.evaluator_questions import yes_no
from rewards.keypoints import KeyPoint
from rewards.verdicts import Asked, Checker, Verdict
from rewards.vlm import Judge, log_odds


class YesNo(Checker):
    """P(yes) / (P(yes) + P(no)) of the question, the least of both where structure is asked for too."""

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge

    def check(self, images: Tensor, asked: Sequence[Sequence[Asked]]) -> list[list[Verdict]]:
        """images (B, 3, H, W) in [0, 1] -> verdicts in [0, 1]; all questions go to the judge at once.

        Raises ValueError as `Judge.answer` does.
        """
        questions = [[yes_no(point) for _, point in mine] for mine in asked]
        flat = [question for mine in questions for two in mine for question in two]
        rows = [row for row, mine in enumerate(questions) for two in mine for _ in two]
        answers = log_odds(self.judge.answer(images, flat, rows)).sigmoid().tolist() if flat else []
        left = iter(answers)
        return [
            [_verdict(point, [next(left) for _ in two]) for (_, point), two in zip(mine, texts, strict=True)]
            for mine, texts in zip(asked, questions, strict=True)
        ]


def _verdict(point: KeyPoint, matches: list[float]) -> Verdict:
    names = ("shown", "plausible")
    reason = ", ".join(f"{name} {match:.2f}" for name, match in zip(names, matches, strict=False))
    return Verdict(point, min(matches), reason)
