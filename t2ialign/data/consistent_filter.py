"""Multi-Preference Consistent Filtering: keep the pairs whose label three rewards do not contradict.

A gap is S(win) - S(lose) of one reward. Some winners won on fine detail and look or fit worse otherwise; once
noise hides the detail, their label contradicts what a reward of noisy latents can see.
Source: Zhang et al., NeurIPS 2025, arXiv 2502.01051.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import ArrayLike, NDArray

Three = tuple[float, float, float]
"""One number a reward, in the reward's own unit."""
TIE = 0.5
"""The preference of a pair without a winner."""


@dataclass(frozen=True)
class Limits:
    """The limits of the gaps of a pair that stays."""

    floors: Three
    """The smallest gap of a preference, 0 or less where the reward may disagree a little."""
    ties: Three
    """The largest size of the gap of a tie."""


PUBLISHED = ("aesthetic", "clipscore-h", "vqascore")
"""The rewards in whose units, and in whose order, the published numbers are."""
TIES = (0.2, 0.03, 0.07)
STRATEGIES = {
    1: Limits((0.0, 0.0, 0.0), TIES),
    2: Limits((-0.5, 0.0, 0.0), TIES),
    3: Limits((-1.0, 0.0, 0.0), TIES),
}
"""The limits that the paper compares; the second one gave the best latent reward."""


def allowed(gaps: ArrayLike, preferences: ArrayLike, limits: Limits) -> NDArray[np.bool_]:
    """Gaps (N, 3), preferences (N,) in [1/2, 1] -> (N, 3): which rewards put up with which pair.

    A preference needs gap >= floor, and a tie (preference 1/2) needs |gap| <= its width. Raises ValueError
    for other shapes, gaps that are not finite and preferences outside [1/2, 1].
    """
    gap, preference = np.asarray(gaps, np.float64), np.asarray(preferences, np.float64)
    if gap.ndim != 2 or gap.shape[1] != 3 or preference.shape != gap.shape[:1]:
        raise ValueError(
            f"got gaps {gap.shape} and preferences {preference.shape}; expected (N, 3) and (N,); align them"
        )
    if not np.isfinite(gap).all():
        broken = int((~np.isfinite(gap)).any(1).sum())
        raise ValueError(f"got {broken} pairs whose gaps are not finite; expected numbers; drop those pairs")
    if not ((preference >= TIE) & (preference <= 1)).all():
        low, high = float(preference.min()), float(preference.max())
        raise ValueError(
            f"got preferences from {low:g} to {high:g}; expected the winner's share, 1/2 to 1; swap the sides"
        )
    return np.where((preference == TIE)[:, None], np.abs(gap) <= limits.ties, gap >= limits.floors)


def consistent(gaps: ArrayLike, preferences: ArrayLike, limits: Limits) -> NDArray[np.bool_]:
    """Gaps (N, 3), preferences (N,) in [1/2, 1] -> (N,): the pairs to keep, as all rewards allow them.

    Raises ValueError like `allowed`.
    """
    return np.asarray(allowed(gaps, preferences, limits).all(1))


def dropped_by(allows: NDArray[np.bool_], names: Sequence[str]) -> dict[str, int]:
    """What `allowed` gave (N, 3), three names -> pairs that these rewards and no other forbid.

    Keys are "a", then "a + b", then "a + b + c", for each set of rewards; the counts add up to all dropped.
    """
    sets = [places for size in (1, 2, 3) for places in combinations(range(3), size)]
    return {
        " + ".join(names[place] for place in places): int((allows == ~np.isin(range(3), places)).all(1).sum())
        for places in sets
    }
