"""Key points judged by how likely a vision-language model is to say yes: a continuous match."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from rewards.keypoints.evaluator_questions import yes_no
from rewards.keypoints.taxonomy import KeyPoint
from rewards.keypoints.verdicts import Checker, PromptPoint, Verdict
from rewards.vlm.base import Judge, NeitherWord, log_odds

REMINDER = "\nThe answer must begin with one of the words yes and no."


class YesNo(Checker):
    """P(yes) / (P(yes) + P(no)) of the question, the least of both where structure is asked for too.

    An answer that is neither is asked for once more with a reminder; the match of its key point is None if
    that fails too. `retried` and `unreadable` count such answers so far.
    """

    def __init__(self, judge: Judge) -> None:
        super().__init__()
        self.judge = judge
        self.retried = self.unreadable = 0

    def check(self, images: Tensor, pairs: Sequence[Sequence[PromptPoint]]) -> list[list[Verdict]]:
        """images (B, 3, H, W) in [0, 1] -> verdicts in [0, 1] or None; all questions go to the judge at once.

        Raises ValueError as `Judge.answer` does, but not for answers that are neither yes nor no.
        """
        questions = [[yes_no(point) for _, point in pairs_of_image] for pairs_of_image in pairs]
        flat = [
            (row, text)
            for row, pairs_of_image in enumerate(questions)
            for two in pairs_of_image
            for text in two
        ]
        left = iter(self._answered(images, flat))
        return [
            [
                _verdict(point, [next(left) for _ in two])
                for (_, point), two in zip(pairs_of_image, texts, strict=True)
            ]
            for pairs_of_image, texts in zip(pairs, questions, strict=True)
        ]

    def _answered(self, images: Tensor, flat: Sequence[tuple[int, str]]) -> list[float | str]:
        """(image, question) -> the match of each, or what was answered where that was neither word."""
        matches: list[float | str] = [""] * len(flat)
        missing = list(range(len(flat)))
        for reminder in ("", REMINDER):
            if not missing:
                break
            self.retried += len(missing) if reminder else 0
            rows, texts = zip(*(flat[place] for place in missing), strict=True)
            unread: dict[int, str] = {}
            try:
                answers = self.judge.answer(images, [text + reminder for text in texts], rows)
            except NeitherWord as error:
                answers, unread = error.answers, error.reasons
            for j, match in enumerate(log_odds(answers).sigmoid().tolist()):
                matches[missing[j]] = unread.get(j, match)
            missing = [missing[j] for j in unread]
        self.unreadable += len(missing)
        return matches


def _verdict(point: KeyPoint, answers: Sequence[float | str]) -> Verdict:
    names = ("shown", "plausible")
    matches = [answer for answer in answers if not isinstance(answer, str)]
    if unread := [answer for answer in answers if isinstance(answer, str)]:
        return Verdict(point, None, unread[0])
    reason = ", ".join(f"{name} {match:.2f}" for name, match in zip(names, matches, strict=False))
    return Verdict(point, min(matches), reason)
