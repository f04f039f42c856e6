"""Losses of online reinforcement learning that need clean images alone, noised anew (the forward process).

Zheng et al. 2025 (DiffusionNFT, arXiv 2509.16117) and Xue et al. 2026 (advantage-weighted matching, AWM).
Predictions of x_0 are (B, C, h, w), losses (B,).
"""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_ERROR = 1e-5
"""The least mean absolute error by which NFT divides."""
HUBER_POWER, HUBER_EPS = 0.25, 1e-10
"""The power of AWM's weighting of errors, and what keeps its gradient finite at 0."""


def nft(
    x_0: Tensor, new: Tensor, old: Tensor, advantages: Tensor, *, beta: float, largest: float = 5.0
) -> Tensor:
    """A (r l(beta x_new + (1 - beta) x_old) + (1 - r) l((1 + beta) x_old - beta x_new)) / beta, (B,).

    new, old: the x_0 that the policy and the sampling policy predict of a noised x_0. r = clip(a / A, -1, 1)
    / 2 + 1/2 of the advantage a and A = `largest`; l is the mean squared error by the mean absolute one,
    which carries no gradient. A good image draws the prediction to it, a bad one draws the opposite one.
    """
    share = (advantages / largest).clamp(-1, 1) / 2 + 0.5
    good = _by_its_size(beta * new + (1 - beta) * old - x_0)
    bad = _by_its_size((1 + beta) * old - beta * new - x_0)
    return largest * (share * good + (1 - share) * bad) / beta


def _by_its_size(error: Tensor) -> Tensor:
    with torch.no_grad():
        size = error.double().abs().flatten(1).mean(1).clamp_min(LEAST_ERROR)
    squares: Tensor = error.square().flatten(1).mean(1)
    return squares / size.to(error.dtype)


def matching_log_prob(error: Tensor, sigma: Tensor) -> Tensor:
    """-sigma ((e + 1e-10)^p - (1e-10)^p) / p with p = 1/4, of mean squared errors e (B,) at sigma (B,).

    What AWM takes for log p: exact up to its weighting, for which see the paper's code.
    """
    p = HUBER_POWER
    powers: Tensor = (error + HUBER_EPS).pow(p) - HUBER_EPS**p
    return -sigma * powers / p
