"""How far several judges of the same comparisons agree, and how often each is wrong by that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Votes = NDArray[np.int_]
"""(N, K): 1 where judge k prefers the first image of comparison n, -1 the second, 0 neither."""
ROUNDS = 200
"""Rounds of expectation and maximisation at most."""
FEWEST = 50
FIRST = 0.75
"""The accuracy of every judge at the start: better than chance, which says what the answer means."""


def agreement(votes: Votes) -> NDArray[np.float64]:
    """(K, K): of the comparisons in which both judges prefer an image, the share in which it is the same.

    NaN for judges that never both do.
    """
    both = (votes != 0).astype(float)
    together = both.T @ both
    same = (together + votes.T @ votes) / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(same / together)


def accuracies(votes: Votes) -> NDArray[np.float64] | None:
    """The estimated share of right answers of each of K judges, (K,); None where the votes cannot tell.

    The one-coin model of Dawid and Skene 1979: a judge errs equally often on every comparison, whatever the
    others say. Judges that share a tower or a taste err together, and then seem better than they are. Two
    judges can only be told apart from chance together: both get the accuracy that their agreement implies. A
    single judge, and fewer than `FEWEST` comparisons of which two judges say something, tell nothing.
    """
    count = votes.shape[1]
    if count < 2 or int(((votes != 0).sum(1) >= 2).sum()) < FEWEST:
        return None
    if count == 2:
        same = agreement(votes)[0, 1]
        if np.isnan(same):
            return None
        return np.full(2, (1 + np.sqrt(max(2 * same - 1, 0.0))) / 2)
    estimate = np.full(count, FIRST)
    spoken = np.maximum((votes != 0).sum(0), 1)
    for _ in range(ROUNDS):
        first = posterior(votes, estimate)
        right = np.where(votes > 0, first[:, None], 1 - first[:, None]) * (votes != 0)
        new = (right.sum(0) / spoken).clip(0.01, 0.99)
        if np.abs(new - estimate).max() < 1e-6:
            break
        estimate = new
    return estimate


def posterior(votes: Votes, accuracy: NDArray[np.float64]) -> NDArray[np.float64]:
    """The probability (N,) that the first image is better, by votes of judges of those accuracies (K,)."""
    safe = accuracy.clip(0.01, 0.99)
    logit = votes @ np.log(safe / (1 - safe))
    return np.asarray(1 / (1 + np.exp(-logit)))


def label_noise(votes: Votes, labels: Sequence[int], accuracy: NDArray[np.float64] | None) -> float | None:
    """The estimated share of wrong ones among labels 1 (first image) or -1; None where nothing tells."""
    if accuracy is None or not len(labels):
        return None
    first = posterior(votes, accuracy)
    wrong = np.where(np.asarray(labels) > 0, 1 - first, first)
    return float(wrong.mean())
