"""What several raters say of the same images: their majority, and how far they agree."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from t2ialign.evaluation.columns import Array


def majority(labels: ArrayLike) -> Array:
    """0/1 labels of N images by n raters -> (N,): 1 where more than half said 1; -1, unsure, is not a 1."""
    votes = np.asarray(labels)
    return np.asarray(2 * (votes == 1).sum(1) > votes.shape[1], np.float64)


def fleiss_kappa(labels: ArrayLike, *, unsure: int | None = None) -> float:
    """Agreement of n raters on N items beyond chance, 1 for full agreement; labels (N, n) of any categories.

    Items on which a rater answered `unsure` are left out. Raises ValueError for fewer than two raters, or one
    category only, where chance agrees too. Source: Fleiss 1971.
    """
    rows = np.asarray(labels)
    if rows.ndim != 2 or rows.shape[1] < 2:
        raise ValueError(f"got labels of shape {rows.shape}; expected (items, raters >= 2); stack them")
    rows = rows if unsure is None else rows[(rows != unsure).all(1)]
    counts = np.stack([(rows == category).sum(1) for category in np.unique(rows)], axis=1)
    if counts.shape[1] < 2:
        raise ValueError(f"got {len(rows)} items of one category; expected two or more; kappa has no meaning")
    raters = rows.shape[1]
    observed = ((counts * (counts - 1)).sum(1) / (raters * (raters - 1))).mean()
    chance = float(np.square(counts.sum(0) / counts.sum()).sum())
    return float((observed - chance) / (1 - chance))
