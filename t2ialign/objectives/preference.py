"""Pairwise preference losses on log-ratios, or on denoising errors where there is no reference.

Most methods see only r = log pi(x) / pi_ref(x) of the winner and of the loser, so the same losses serve
Diffusion-DPO (r from the denoising error) and step-level methods (r from p(x_s | x_t)). `weight` stands
inside the sigmoid.
"""

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

NAMES = {"dpo": "log-ratios", "ipo": "log-ratios", "hinge": "log-ratios", "mapo": "errors"}

SMALL = 0.02


def dpo(r_win: Tensor, r_lose: Tensor, *, beta: float, weight: Tensor | float = 1.0) -> Tensor:
    """-log sigmoid(beta weight (r_win - r_lose)), (B,) -> (B,); ln 2 when policy = reference. Rafailov et al.
    2023, eq. 7.
    """
    return -logsigmoid(beta * weight * (r_win - r_lose))


def ipo(r_win: Tensor, r_lose: Tensor, *, beta: float, weight: Tensor | float = 1.0) -> Tensor:
    """(weight (r_win - r_lose) - 1 / (2 beta))^2, (B,) -> (B,): the margin has a goal. Azar et al. 2024."""
    return (weight * (r_win - r_lose) - 1 / (2 * beta)).square()


def hinge(r_win: Tensor, r_lose: Tensor, *, beta: float, weight: Tensor | float = 1.0) -> Tensor:
    """max(0, 1 - beta weight (r_win - r_lose)), (B,) -> (B,): no gradient beyond a margin of 1. Zhao et al.
    2023.
    """
    return (1 - beta * weight * (r_win - r_lose)).clamp_min(0)


def mapo(
    err_win: Tensor,
    err_lose: Tensor,
    *,
    beta: float = 0.1,
    c: float = 0.5,
    T: int,
    weight: Tensor | float = 1.0,
) -> Tensor:
    """err_win - beta log sigmoid(T weight (s(err_win) - s(err_lose))) with s(e) = c e / (exp(c e) - 1), (B,)
    -> (B,).

    Reference-free: err are mean squared denoising errors, the first term is supervised training on the
    winner. T: the number of training timesteps, over which MaPO sums its score; at one time drawn in
    training, T times the score estimates that sum. Where times are continuous the sum is an integral, and T
    only sets the scale that beta belongs to: take the scheduler's own count. Hong et al. 2024 (MaPO).
    """
    margin = _bernoulli_score(c * err_win) - _bernoulli_score(c * err_lose)
    return err_win - beta * logsigmoid(T * weight * margin)


def denoising_ratio(err: Tensor, ref_err: Tensor) -> Tensor:
    """Surrogate of log pi / pi_ref: half the drop in mean squared denoising error, (B,) -> (B,).

    With the half, `dpo` is the released Diffusion-DPO expression and beta is on its launcher's scale (5000).
    Wallace et al. 2024, eq. 14.
    """
    return 0.5 * (ref_err - err)


def _bernoulli_score(x: Tensor) -> Tensor:
    """x / (e^x - 1) for x >= 0, value and gradient right down to 0, where the quotient is 0 / 0."""
    series = 1 - x / 2 + x.square() / 12 - x.pow(4) / 720
    safe = torch.where(
        x > SMALL, x, torch.ones_like(x)
    )  # keeps the untaken quotient's NaN out of the gradient
    return torch.where(x > SMALL, safe / torch.expm1(safe), series)


def bradley_terry(margin: Tensor, preference: Tensor) -> Tensor:
    """Cross-entropy of sigmoid(margin) and preference, less the label's own entropy. (B,) -> (B,)

    margin: log-odds that the first is better. preference in [0, 1]: 1 for the first, 0 the second, 1/2 a tie,
    on which the loss is 0 at margin 0. Bradley and Terry 1952; Kirstain et al. 2023, eq. 2.
    """
    entropy: Tensor = torch.special.entr(preference) + torch.special.entr(1 - preference)
    return softplus(margin) - preference * margin - entropy


def mean_square(residual: Tensor) -> Tensor:
    """(B, C, h, w) -> (B,), the reduction that beta is calibrated to."""
    return residual.square().flatten(1).mean(1)


def wins(margin: Tensor) -> Tensor:
    """1 where positive, 1/2 at a tie: an untrained policy scores 50 %, not 0."""
    return (margin.sign() + 1) / 2
