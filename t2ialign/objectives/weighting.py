"""Temporal discounting: early (noisy) steps set the layout, so they count more. Yang et al. 2024.

A family draws its training times as t = draw(u), u uniform in [0, 1), the noisiest at u = 0; its sampler
takes T steps between T + 1 times, the edges. k(t) is the number of those steps taken when the noise has
fallen to t. Two estimators of the same weighted loss: draw t in proportion to gamma^k times the family's own
density, or draw t as the family does and weight by gamma^k. For Stable Diffusion, whose t is uniform over
0 .. 999, k is floor((999 - t) T / 1000).
"""

from collections.abc import Callable

import torch
from torch import Tensor

HALVINGS = 60
"""Halvings of [0, 1], in which a step's share of the training times is sought: as fine as fp64."""


def steps_taken(t: Tensor, edges: Tensor) -> Tensor:
    """k of times t (B,), long (B,) in 0 .. T - 1: how many of the T steps between `edges` (T + 1,), noise
    first, have been taken. A time on an edge belongs to the step that begins there.
    """
    return (t[..., None] <= edges[1:-1].to(t.device)).sum(-1)


def discount_probabilities(num_inference_steps: int, gamma: float) -> Tensor:
    """gamma^k / sum of gamma^j, fp64 (T,); entry 0 is the NOISIEST step. Raises ValueError outside 0 < gamma
    <= 1.
    """
    _check(num_inference_steps, gamma)
    powers = torch.tensor(gamma, dtype=torch.float64) ** torch.arange(num_inference_steps)
    return powers / powers.sum()


class Discount:
    """gamma^k over the training times of one family.

    draw: u (N,) fp64 in [0, 1) -> times (N,), never rising in u. edges: (T + 1,), noise first. Raises
    ValueError outside 0 < gamma <= 1, and for no steps.
    """

    def __init__(self, draw: Callable[[Tensor], Tensor], edges: Tensor, gamma: float) -> None:
        _check(len(edges) - 1, gamma)
        self.draw, self.edges, self.gamma = draw, edges, gamma
        inner = edges[1:-1]
        low, high = torch.zeros(len(inner), dtype=torch.float64), torch.ones(len(inner), dtype=torch.float64)
        for _ in range(HALVINGS):  # towards the u at which the drawn time has fallen to each edge
            middle = (low + high) / 2
            reached = draw(middle).cpu() <= inner
            low, high = torch.where(reached, low, middle), torch.where(reached, middle, high)
        self._starts = torch.cat([torch.zeros(1, dtype=torch.float64), high])
        ends = torch.cat([high, torch.ones(1, dtype=torch.float64)])
        self.shares = ends - self._starts
        """The share of undiscounted training times in each step, fp64 (T,)."""
        self._powers = torch.tensor(gamma, dtype=torch.float64) ** torch.arange(len(self.shares))

    def weight(self, t: Tensor) -> Tensor:
        """gamma^k at times t (B,), scaled to mean 1 over undiscounted training times -> fp32 (B,)."""
        weights = (self._powers / (self.shares * self._powers).sum()).float()
        return weights.to(t.device)[steps_taken(t, self.edges)]

    def times(self, u: Tensor) -> Tensor:
        """u (B,) uniform in [0, 1) -> times (B,) in proportion to gamma^k(t) times the family's own density.

        By the inverse of the distribution function, so the noisiest is at u = 0. gamma = 1 is draw(u) itself.
        """
        if self.gamma == 1:
            return self.draw(u)
        mass = (self.shares * self._powers).to(u.device)
        cumulative = mass.cumsum(0)
        sought = u.double() * cumulative[-1]
        k = torch.searchsorted(cumulative, sought, right=True).clamp_max(len(mass) - 1)
        width, power = self.shares.to(u.device)[k], self._powers.to(u.device)[k]
        inside = (sought - (cumulative - mass)[k]) / power
        return self.draw(self._starts.to(u.device)[k] + inside.clamp_min(0).minimum(width))


def _check(num_inference_steps: int, gamma: float) -> None:
    if not 0 < gamma <= 1:
        raise ValueError(f"got gamma={gamma}; expected 0 < gamma <= 1, where 1 is no discounting")
    if num_inference_steps < 1:
        raise ValueError(f"got num_inference_steps={num_inference_steps}; expected at least 1")
