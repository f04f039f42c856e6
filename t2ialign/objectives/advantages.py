"""Advantages of the images of a round: how much better each one is than the others of its prompt.

Scores are (G, K): G groups of K images of one prompt; of several rewards (R, G, K).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Combination = Literal["gdpo", "advantages", "scores", "log_sigmoid"]
"""gdpo: every reward standardised in its group, their weighted sum standardised again over the round.
advantages: that sum as it is. scores: the weighted sum of the scores, standardised. log_sigmoid: a weighted
sum of log sigmoids, in which a reward counts less once it is ahead of its group, standardised."""
Standardise = Callable[[Tensor], Tensor]
"""Scores (G, K) of one reward -> advantages (G, K)."""
LEAST_STD = 1e-6
"""A spread below it is none."""
GLOBAL_EPS = 1e-4
"""Added to the standard deviation over a round, as in the code of Flow-GRPO."""


def over_round(scores: Tensor) -> Tensor:
    """(G, K) -> less the group's mean, by the standard deviation of the whole round; 0 in a flat group.

    Liu et al. 2025 (Flow-GRPO), the default of its code.
    """
    centred = scores - scores.mean(1, keepdim=True)
    advantages = centred / (scores.std(correction=0) + GLOBAL_EPS)
    return torch.where(flat(scores)[:, None], 0.0, advantages)


def flat(scores: Tensor) -> Tensor:
    """Whether the images of a group are all alike, (G, K) -> (G,)."""
    return (scores - scores.mean(1, keepdim=True)).square().mean(1).sqrt() <= LEAST_STD


class PromptStatistics:
    """The latest scores of each prompt, whose mean and deviation standardise new ones.

    While a prompt has fewer than `least` of them the round's own are taken. Black et al. 2024 (DDPO).
    """

    def __init__(self, *, latest: int = 32, least: int = 16) -> None:
        self.latest, self.least = latest, least
        self._scores: dict[str, deque[float]] = {}

    def add(self, prompts: Sequence[str], scores: Tensor) -> None:
        """Take in the scores (G, K) of G prompts."""
        for prompt, row in zip(prompts, scores.tolist(), strict=True):
            self._scores.setdefault(prompt, deque(maxlen=self.latest)).extend(row)

    def __call__(self, prompts: Sequence[str], scores: Tensor) -> Tensor:
        """Advantages (G, K), after these scores were taken in; 0 where there is no spread."""
        rows = []
        for prompt, row in zip(prompts, scores, strict=True):
            known = torch.tensor(self._scores.get(prompt, ()), dtype=scores.dtype)
            pool = known if len(known) >= self.least else scores.flatten()
            std = pool.std(correction=0)
            centred = (row - pool.mean()) / (std + LEAST_STD)
            rows.append(centred if std > LEAST_STD else torch.zeros_like(row))
        return torch.stack(rows)


def combined(
    scores: Tensor,
    weights: Tensor,
    rule: Combination,
    standardise: Sequence[Standardise],
    references: Tensor | None = None,
) -> Tensor:
    """Scores (R, G, K) of R rewards and their weights (R,) -> advantages (G, K).

    standardise: one for each reward; the first one is that of their sum. references: (R, G, K), what each
    score is to be above, for log_sigmoid, whose scale is the reward's deviation over the round. GDPO: arXiv
    2601.05242. Log-sigmoid: Wang et al. 2024, arXiv 2402.00742. Raises ValueError without what the rule
    needs.
    """
    w = weights[:, None, None]
    if rule == "scores":
        return standardise[0]((w * scores).sum(0))
    if rule == "log_sigmoid":
        if references is None:
            raise ValueError("got no references for log_sigmoid; expected one for each score; pass them")
        scales = scores.std((1, 2), correction=0, keepdim=True).clamp_min(LEAST_STD)
        return standardise[0]((w * logsigmoid((scores - references) / scales)).sum(0))
    total = (w * torch.stack([fit(one) for fit, one in zip(standardise, scores, strict=True)])).sum(0)
    if rule == "advantages":
        return total
    return total / (total.std(correction=0) + GLOBAL_EPS)
