"""Pairs and likes out of several images of a prompt, by the scores of one judge or of a panel of tools."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
"""(n, K): scores of n images of one prompt by K tools, of which more is better; NaN where there is none."""


@dataclass(frozen=True)
class Rule:
    """Which pairs of a prompt's images are taken."""

    every: bool = False
    """Every two images, and not the best and the worst alone."""
    min_margin: float = 0.0
    """The margin has to be larger."""
    min_agreement: float = 0.0
    """The share of the tools that has to agree; one without a preference counts half."""
    ties: float | None = None
    """Pairs whose margin is at most so large are ties; none drops them."""


@dataclass(frozen=True)
class Choice:
    """Two images of a prompt by their numbers, the better one first, and where their label comes from."""

    win: int
    lose: int
    margin: float
    """How much better, by the judge or by the panel."""
    gaps: tuple[float, ...]
    """The same by each tool, in its units."""
    agreement: float
    """The share of the tools that agrees."""
    tie: bool = False

    @property
    def votes(self) -> tuple[int, ...]:
        """1 for each tool that agrees, -1 for one that does not, 0 for one without a preference."""
        return tuple(0 if math.isnan(gap) else int(np.sign(gap)) for gap in self.gaps)


def spreads(groups: Sequence[Scores]) -> NDArray[np.float64]:
    """The standard deviation of each tool's scores within a prompt, (K,); 1 for one that ties everywhere."""
    within = np.concatenate([group - np.nanmean(group, 0) for group in groups])
    spread = np.sqrt(np.nanmean(within**2, 0))
    return np.where(spread > 0, spread, 1.0)


def panel(scores: Scores, spread: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of the tools' scores in units of their spreads, (n,); of one tool its scores as they are."""
    if scores.shape[1] == 1:
        return scores[:, 0]
    return np.asarray((scores / spread).mean(1))


def pairs(scores: Scores, order: NDArray[np.float64], rule: Rule) -> Iterator[tuple[Choice, str | None]]:
    """Candidate pairs of one prompt's images by an order (n,), each with why it is not taken, if it is not.

    Images that some tool or the order has no score for are left out. The reason is "margin", "agreement" or
    "tie".
    """
    whole = [i for i in range(len(order)) if np.isfinite(order[i]) and np.isfinite(scores[i]).all()]
    ranked = sorted(whole, key=lambda i: (-order[i], i))
    for win, lose in combinations(ranked, 2) if rule.every else [(ranked[0], ranked[-1])] * (len(ranked) > 1):
        gaps = scores[win] - scores[lose]
        agreement = float(((np.sign(gaps) + 1) / 2).mean())
        margin = float(order[win] - order[lose])
        tied = margin <= (rule.ties or 0)
        choice = Choice(win, lose, margin, tuple(gaps.tolist()), agreement, tied)
        if tied:
            yield choice, None if rule.ties is not None else "tie"
        elif margin <= rule.min_margin:
            yield choice, "margin"
        else:
            yield choice, "agreement" if agreement < rule.min_agreement else None


def likes(scores: Scores, *, liked: float, disliked: float) -> list[bool | None]:
    """Whether each of a prompt's images is liked, (n,); None for neither.

    Liked is what every tool puts at its quantile `liked` or above, disliked what some tool puts at its
    quantile `disliked` or below; of equal scores nothing is liked and nothing disliked.
    """
    whole = [bool(np.isfinite(row).all()) for row in scores]
    if not any(whole):
        return [None] * len(scores)
    known = scores[whole]
    high, low = (np.quantile(known, q, axis=0) for q in (liked, disliked))
    told: list[bool | None] = []
    for row, there in zip(scores, whole, strict=True):
        up = np.all((row >= high) & (row > known.min(axis=0)))
        down = np.any((row <= low) & (row < known.max(axis=0)))
        told.append(bool(up) if there and (up or down) else None)
    return told
