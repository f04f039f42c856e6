"""The Diffusion-SDPO safeguard: never let the loser's gradient raise the winner's error, to first order.

Diffusion-DPO's margin can grow because the loser gets worse faster than the winner does. Scaling the loser's
gradient, one lambda per pair, stops that. "Diffusion-SDPO", 2025, arXiv 2511.03317.
"""

import torch
from torch import Tensor


def loser_scale(residual_win: Tensor, residual_lose: Tensor, *, mu: float) -> Tensor:
    """lambda (B,) in [0, 1] for residuals (network output - target) (B, C, h, w) of pairs that share t and
    eps.

    The gradients of the errors g are the residuals up to a factor that cancels: lambda = (1 - mu) |g_w|^2 /
    <g_w, g_l> where the two agree, else 1. mu in [0, 1] is the share of the winner's descent kept at least.
    Carries no gradient. Raises ValueError for mu outside [0, 1].
    """
    if not 0 <= mu <= 1:
        raise ValueError(f"got mu={mu}; expected a number from 0 to 1 (0.9 for SD1.5, 0.6 for SDXL)")
    win, lose = residual_win.detach().float().flatten(1), residual_lose.detach().float().flatten(1)
    overlap = (win * lose).sum(1)
    agree = overlap > 0
    scale = (1 - mu) * win.square().sum(1) / torch.where(agree, overlap, torch.ones_like(overlap))
    return torch.where(agree, scale.clamp(0, 1), torch.ones_like(overlap))


def scale_gradient(x: Tensor, scale: Tensor) -> Tensor:
    """x with its value kept and its gradient times scale; both (B,)."""
    still = x.detach()
    return still + scale * (x - still)


def clip_rise(err: Tensor, reference: Tensor, limit: float) -> Tensor:
    """Errors (B,) of what is not wanted, whose gradient ends where they are `limit` above the reference's.

    Text preference optimisation is reported to clip its negative term (arXiv 2509.25771); the formula there
    is unverified, and this one is ours.
    """
    return torch.minimum(err, reference + limit)
