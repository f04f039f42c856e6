"""Losses on candidates: states x_s drawn from one p(x_s | x_t), judged one sampling step at a time.

Every log-ratio is log pi / pi_ref of one step, the MEAN over the latent: the published clip ranges and betas
are calibrated to that. Zhang et al., NeurIPS 2025, arXiv 2502.01051 (LPO); Liang et al., arXiv 2406.04314
(SPO); Yang et al., arXiv 2311.13231 (D3PO).
"""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

Schedule = Literal["std", "variance", "linear"]
"""The quantity with which the threshold grows: the step's noise (as released), its square, or its t."""


def best_and_worst(scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Scores (B, K) -> indices of the highest and the lowest (B,) each, and p_best - p_worst (B,) in [0, 1).

    p is the softmax of those two scores: their difference is tanh((S_best - S_worst) / 2). All equal: 0.
    """
    high, best = scores.max(1)
    low, worst = scores.min(1)
    return best, worst, torch.tanh((high - low) / 2)


def threshold(
    std: Tensor, t: Tensor, *, low: float, high: float, stds: Tensor, times: Tensor, schedule: Schedule
) -> Tensor:
    """The gap p_best - p_worst that a pair must exceed, (B,): `low` at the least noise, `high` at the most.

    std, t: (B,) of the steps. stds, times: of all steps that are judged, whose extremes are the ends. With
    equal ends, or low = high, it is `low`. Raises ValueError unless 0 <= low <= high < 1.
    """
    if not 0 <= low <= high < 1:
        raise ValueError(f"got thresholds {low:g} and {high:g}; expected 0 <= low <= high < 1; swap or lower")
    if schedule not in get_args(Schedule):
        raise ValueError(f"got schedule {schedule!r}; expected one of {', '.join(get_args(Schedule))}")
    values, ends = {
        "std": (std, stds),
        "variance": (std.square(), stds.square()),
        "linear": (t.float(), times.float()),
    }[schedule]
    spread = float(ends.max() - ends.min())
    share = (values - ends.min()) / spread if spread else torch.zeros_like(values)
    return low + share * (high - low)


def clipped(ratio: Tensor, clip: float) -> Tensor:
    """log clip(pi / pi_ref, 1 - clip, 1 + clip) of a log-ratio of any shape; no gradient beyond the range."""
    return ratio.clamp(math.log(1 - clip), math.log(1 + clip))


def candidate_preference(r_win: Tensor, r_lose: Tensor, *, beta: float, clip: float) -> Tensor:
    """-log sigmoid(beta (clipped r_win - clipped r_lose)), (B,) -> (B,); ln 2 when policy = reference."""
    return -logsigmoid(beta * (clipped(r_win, clip) - clipped(r_lose, clip)))


def group_advantages(scores: Tensor, *, least_std: float = 1e-6) -> Tensor:
    """Scores (B, K) of candidates -> their standard scores within each row; 0 where all are alike."""
    centred = scores - scores.mean(1, keepdim=True)
    std = centred.square().mean(1, keepdim=True).sqrt()
    return torch.where(std > least_std, centred / std.clamp_min(least_std), 0.0)


def clipped_surrogate(ratio: Tensor, advantages: Tensor, *, clip: float) -> Tensor:
    """PPO's loss, log-ratios to the sampler and advantages (B, K) -> (B,), the mean over candidates."""
    r = ratio.exp()
    gain = torch.minimum(r * advantages, r.clamp(1 - clip, 1 + clip) * advantages)
    return -gain.mean(1)
