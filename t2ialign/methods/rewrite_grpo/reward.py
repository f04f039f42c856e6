"""The reward of a rewriter: its rewrite rendered by a frozen generator, and judged for the user's prompt.

Key points come from the user's prompt alone; of the rewrite, a rewriter that drops a hard wish would be paid
for it. What cannot be used is replaced by the user's prompt, as when images are made.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import rewards
from rewards.keypoints.evaluator import AlignEvaluator
from rewards.keypoints.taxonomy import KeyPoint
from rewards.vlm.base import UnreadableAnswer
from t2ialign.models.base import Policy
from t2ialign.models.generate import generate
from t2ialign.rewriting.intensity import word_count
from t2ialign.rewriting.parse import CUT
from t2ialign.rewriting.rewriter import Rewritten, judge
from t2ialign.rewriting.survival import KINDS


class ImageReward:
    """Outputs of a rewriter -> rewards of the images made from them; each text and seed is rendered once.

    survival: whether a rewrite that lost a quote, number or negation is replaced by the user's prompt.
    options: of `generate`.
    """

    __name__ = "image_reward"  # TRL names the metric after it

    def __init__(
        self, policy: Policy, reward: rewards.Reward, *, convention: str, survival: bool, **options: Any
    ) -> None:
        self.policy, self.reward, self.options = policy, reward, options
        self.convention, self.survival = convention, survival

    def __call__(
        self,
        *,
        completions: Sequence[Sequence[dict[str, str]]],
        ended: Sequence[bool],
        wish: Sequence[str],
        points: Sequence[Sequence[KeyPoint]],
        image_seed: Sequence[int],
        log_metric: Any = None,
    ) -> list[float]:
        """B outputs, whether each came to its end, user prompts, their key points, image seeds -> B."""
        outputs = [talk[-1]["content"] for talk in completions]
        results = [
            judge(prompt, output if end else output + CUT, convention=self.convention, survival=self.survival)
            for prompt, output, end in zip(wish, outputs, ended, strict=True)
        ]
        renders = [(result.text, seed) for result, seed in zip(results, image_seed, strict=True)]
        unique = list(dict.fromkeys(renders))
        images = self.render(unique)
        scores = self.score(images[[unique.index(one) for one in renders]], list(wish), points)
        if log_metric is not None:
            for name, value in {**figures(results), **spent(unique, renders, scores)}.items():
                log_metric(name, value)
        return without_gaps(scores, image_seed)

    @torch.no_grad()
    def render(self, renders: Sequence[tuple[str, int]]) -> Tensor:
        """N texts and seeds -> (N, 3, H, W) in [0, 1]."""
        texts, seeds = zip(*renders, strict=True)
        return generate(self.policy, list(texts), list(seeds), **self.options)

    @torch.no_grad()
    def score(self, images: Tensor, wish: list[str], points: Sequence[Sequence[KeyPoint]]) -> list[float]:
        """(N, 3, H, W), N user prompts, their key points -> N scores; NaN where no verdict could be read."""
        if isinstance(self.reward, AlignEvaluator):
            evaluations = self.reward.judge(images, wish, points)
            return [math.nan if one.score is None else one.score for one in evaluations]
        try:
            return self.reward(images, wish).tolist()
        except UnreadableAnswer as error:
            return error.scores.tolist()


def figures(results: Sequence[Rewritten]) -> dict[str, float]:
    """Shares in [0, 1] of what could not be used and of what was lost by kind, and mean lengths in words."""
    share = 1 / len(results)
    return {
        "rewrite/fallback": share * sum(result.fallback is not None for result in results),
        "rewrite/used": share * sum(result.used == "rewrite" for result in results),
        **{
            f"rewrite/lost_{kind}": share
            * sum(any(loss.what == kind for loss in result.lost) for result in results)
            for kind in KINDS
        },
        "rewrite/words": share * sum(word_count(result.text) for result in results),
        "rewrite/thought_words": share * sum(word_count(result.thought) for result in results),
    }


def spent(unique: Sequence[object], renders: Sequence[object], scores: Sequence[float]) -> dict[str, float]:
    """Share of the images that had to be rendered, and of verdicts that could not be read."""
    return {
        "rewrite/rendered": len(unique) / len(renders),
        "rewrite/unread": sum(map(math.isnan, scores)) / len(scores),
    }


def without_gaps(scores: Sequence[float], group: Sequence[int]) -> list[float]:
    """Scores whose NaN are the mean of their group's others, so that their advantage is 0; 0 if all are."""
    means = {}
    for key in dict.fromkeys(group):
        read = [score for score, other in zip(scores, group, strict=True) if other == key and score == score]
        means[key] = sum(read) / len(read) if read else 0.0
    return [score if score == score else means[other] for score, other in zip(scores, group, strict=True)]
