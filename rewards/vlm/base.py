"""Vision-language models as judges: how likely is "yes" as the answer to a question about an image, and what
does the model write.

`Judge` is the interface; `vlm_local.py` is the judge over any `AutoModelForImageTextToText`, and
`vlm_endpoint.py` the one over an OpenAI-compatible server. Rewards over a judge: `vqa.py`, `checklist.py`,
`unified_reward.py`.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence

import torch
from PIL import Image
from torch import Tensor

from rewards.llm.base import Cut

log = logging.getLogger(__name__)

YES, NO = ("yes",), ("no",)
DEFAULT = "Qwen/Qwen2.5-VL-7B-Instruct"
"""The judge when none is named; Apache-2.0."""
MARKS = "\u0120\u2581 "
"""The marks with which tokenizers write the space before a word: byte-level, SentencePiece, plain."""
ASIDE = 0.1
"""With less than this on yes and no together a model answers something else, and the ratio says little."""


class UnreadableAnswer(ValueError):
    """Written answers without the number or word that was asked for; `rows` are the images concerned.

    `scores` (B,) has those of the other images, NaN for these, and `reasons` says row by row what is wrong;
    both are of the call of `scorer`, which a reward made of others has to tell from itself.
    """

    def __init__(self, message: str, reasons: Mapping[int, str], scores: Tensor, scorer: object) -> None:
        super().__init__(message)
        self.rows, self.reasons, self.scores, self.scorer = list(reasons), dict(reasons), scores, scorer


class NeitherWord(ValueError):
    """Questions that were answered with neither yes nor no; `reasons` says of each what was answered.

    `answers` (Q, 2) are those of `Judge.answer` to all questions, NaN for these.
    """

    def __init__(self, message: str, reasons: Mapping[int, str], answers: Tensor) -> None:
        super().__init__(message)
        self.reasons, self.answers = dict(reasons), answers


class Judge(ABC):
    """Answers questions about images."""

    warned = False

    @abstractmethod
    def _answer(self, images: Tensor, questions: Sequence[str], rows: list[int]) -> Tensor:
        """Answer as `answer` does, after its checks have passed."""

    @abstractmethod
    def _write(
        self, images: Tensor, questions: Sequence[str], rows: list[int], tokens: int, cut: Cut | None
    ) -> list[str]:
        """Write as `write` does, after its checks have passed."""

    def answer(self, images: Tensor, questions: Sequence[str], rows: Sequence[int] | None = None) -> Tensor:
        """images (B, 3, H, W) in [0, 1], Q questions -> (Q, 2) fp32: log P(yes) and log P(no).

        Question j is about image rows[j], by default its own. Each is the probability that the first token of
        the answer is the word, summed over the tokens that spell it (case, space before). Raises NeitherWord,
        which holds the other answers, where a judge that sees no more than the likeliest tokens finds none of
        these; ValueError for questions that do not fit the images, and for a model that returns NaN.
        """
        answers = self._answer(images, questions, _checked_rows(len(images), questions, rows))
        if not torch.isfinite(answers).all():
            raise ValueError(
                "got a judge whose log-probabilities are not finite; expected numbers; load it with "
                "dtype=bfloat16 or float32 (float16 overflows in some models)"
            )
        share = float(answers.detach().exp().sum(-1).min()) if len(questions) else 1.0
        if share < ASIDE and not self.warned:
            self.warned = True
            log.warning(
                "the judge puts as little as %.2g of its probability on yes and no together: P(yes) / "
                "(P(yes) + P(no)) says little then; ask for yes or no, or switch its thinking off",
                share,
            )
        return answers

    def write(
        self,
        images: Tensor,
        questions: Sequence[str],
        rows: Sequence[int] | None = None,
        *,
        tokens: int = 512,
        cut: Cut | None = None,
    ) -> list[str]:
        """images (B, 3, H, W) in [0, 1], Q questions -> Q answers, decoded greedily, of at most `tokens`
        tokens.

        `cut` gets the places of the questions whose answers were not done at the last token. Raises
        ValueError for questions that do not fit the images.
        """
        return self._write(images, questions, _checked_rows(len(images), questions, rows), tokens, cut)


def log_odds(answers: Tensor) -> Tensor:
    """(..., 2) log P(yes), log P(no) -> (...) log-odds, whose sigmoid is P(yes) / (P(yes) + P(no))"""
    return answers[..., 0] - answers[..., 1]


def to_pil(images: Tensor) -> list[Image.Image]:
    """(B, 3, H, W) in [0, 1] -> B images of 8 bits, rounded to the nearest: what saving them as PNG keeps."""
    pixels = images.detach().clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    return [Image.fromarray(array) for array in pixels]


def _checked_rows(images: int, questions: Sequence[str], rows: Sequence[int] | None) -> list[int]:
    if isinstance(questions, str):
        raise ValueError(f"got one string {questions!r}; expected a list of questions; pass [question]")
    rows = list(range(images)) if rows is None else list(rows)
    if len(rows) != len(questions):
        raise ValueError(
            f"got {len(questions)} questions for {len(rows)} rows; expected one each; pass rows= the image "
            "of each"
        )
    if wrong := [row for row in rows if not 0 <= row < images]:
        raise ValueError(f"got row {wrong[0]} of {images} images; expected 0 to {images - 1}; correct rows=")
    return rows
