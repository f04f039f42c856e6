"""Pairwise losses that read more of a label than who won: ties, and how much better the winner is."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

NAMES = {"ternary": "ties", "difference": "margins"}


def ternary(
    r_win: Tensor,
    r_lose: Tensor,
    *,
    beta: float,
    weight: Tensor | float = 1.0,
    tied: Tensor,
    tie_width: float = 1.0,
) -> Tensor:
    """-log of the probability of win or tie, (B,) -> (B,), where the margin m = beta weight (r_win - r_lose).

    tied (B,) says which pairs are ties. With the width a > 0, P(win) = sigmoid(m - a) and P(tie) =
    (e^2a - 1) sigmoid(m - a) sigmoid(-m - a), which is largest at m = 0; all three outcomes sum to 1. Rao and
    Kupper 1967, whose model of ties takes the place of Bradley and Terry's.
    """
    margin = beta * weight * (r_win - r_lose)
    win, lose = logsigmoid(margin - tie_width), logsigmoid(-margin - tie_width)
    return -torch.where(tied, win + lose + math.log(math.expm1(2 * tie_width)), win)


def difference(
    r_win: Tensor, r_lose: Tensor, *, beta: float, weight: Tensor | float = 1.0, margin: Tensor
) -> Tensor:
    """(beta weight (r_win - r_lose) - margin)^2, (B,) -> (B,): the implicit reward has that difference.

    margin (B,): the reward of the winner less that of the loser, in units in which e^margin are the odds.
    The regression of PRDP (Deng et al. 2024, arXiv 2402.08714), on denoising errors instead of sampled paths.
    """
    return (beta * weight * (r_win - r_lose) - margin).square()
