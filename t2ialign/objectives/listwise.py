"""Preferences over ranked lists of trajectories: Dense-Reward DPO. Yang et al. 2024.

With the published clip (1e-4 on the mean log-ratio) logits stay below temperature x clip, so the loss stays
near that of equal logits: the clip is a gate on each step's gradient. Watch the ratios and the clipped share,
not the loss.
"""

from torch import Tensor


def plackett_luce(logits: Tensor) -> Tensor:
    """-log p(this order), logits (P, M) best first -> (P,); at M = 2 it is Bradley-Terry. Xia et al. 2008
    (ListMLE).
    """
    tails = logits.flip(1).logcumsumexp(1).flip(1)  # over the item and all that rank below it
    return (tails - logits).sum(1)


def clipped_ratio(r: Tensor, c: float) -> Tensor:
    """Log-ratios clamped to [-c, c]; beyond it a step gets no gradient. Raises ValueError unless c > 0."""
    if not c > 0:
        raise ValueError(f"got clip={c}; expected a positive bound on the mean log-ratio, such as 1e-4")
    return r.clamp(-c, c)


def trajectory_logits(r: Tensor, *, temperature: float, clip: float) -> Tensor:
    """temperature x mean over steps of the clipped log-ratios, (P, M, n) -> (P, M).

    The n steps are drawn from `discount_probabilities`, the same ones for all M trajectories of a list, so a
    plain mean estimates the discounted sum. Yang et al. 2024.
    """
    return temperature * clipped_ratio(r, clip).mean(-1)


def best_first(scores: Tensor, tie_breaker: Tensor) -> Tensor:
    """Indices (P, M) that order scores (P, M) best first; equal scores go by tie_breaker (P, M), random
    numbers.
    """
    shuffled = tie_breaker.argsort(1)
    order = scores.gather(1, shuffled).argsort(dim=1, descending=True, stable=True)
    return shuffled.gather(1, order)
