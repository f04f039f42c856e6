"""Temporal discounting: early (noisy) steps set the layout, so they count more. Yang et al. 2024.

Two estimators of the same weighted loss: draw t with probability proportional to gamma^k, or draw it
uniformly and weight by gamma^k. k is the number of reverse steps, of T, already taken at noise level t in 0
.. 999.
"""

import torch
from torch import Tensor

LEVELS = 1000


def steps_taken(t: Tensor, num_steps: int) -> Tensor:
    """k = floor((999 - t) T / 1000), long (B,): 0 at the noisiest level t = 999, T - 1 at t = 0."""
    return ((LEVELS - 1 - t) * num_steps).div(LEVELS, rounding_mode="floor").long()


def discount_probabilities(num_steps: int, gamma: float) -> Tensor:
    """gamma^k / sum of gamma^j, fp64 (T,); entry 0 is the NOISIEST step. Raises ValueError outside 0 < gamma
    <= 1.
    """
    _check(num_steps, gamma)
    powers = torch.tensor(gamma, dtype=torch.float64) ** torch.arange(num_steps)
    return powers / powers.sum()


def discount_weight(t: Tensor, *, num_steps: int, gamma: float) -> Tensor:
    """gamma^k at t (B,), scaled to mean 1 over uniform t in 0 .. 999 -> fp32 (B,). Raises ValueError as
    above.
    """
    powers = _powers_by_level(num_steps, gamma)
    weights = (powers / powers.mean()).flip(0).float()
    return weights.to(t.device)[t]


def sample_timesteps(u: Tensor, *, num_steps: int, gamma: float) -> Tensor:
    """u (B,) uniform in [0, 1) -> t long (B,) with p(t) proportional to gamma^k(t): inverse CDF, noisiest
    first.

    Uniform inside a step's bin; a bin's mass is `discount_probabilities` where T divides 1000. gamma = 1 is
    exactly uniform over 0 .. 999 for any T. Raises ValueError as above.
    """
    cumulative = _powers_by_level(num_steps, gamma).cumsum(0).to(u.device)
    level = torch.searchsorted(cumulative, u.double() * cumulative[-1], right=True)
    return LEVELS - 1 - level.clamp_max(LEVELS - 1)


def _powers_by_level(num_steps: int, gamma: float) -> Tensor:
    """gamma^k for t = 999, 998, .. 0, fp64 (1000,)."""
    _check(num_steps, gamma)
    k = steps_taken(torch.arange(LEVELS - 1, -1, -1), num_steps)
    return torch.tensor(gamma, dtype=torch.float64) ** k


def _check(num_steps: int, gamma: float) -> None:
    if not 0 < gamma <= 1:
        raise ValueError(f"got gamma={gamma}; expected 0 < gamma <= 1, where 1 is no discounting")
    if not 1 <= num_steps <= LEVELS:
        raise ValueError(f"got num_steps={num_steps}; expected 1 to {LEVELS}")
