"""How far scores agree with people on pairs of images: accuracy, the temperature of their odds, calibration.

Every figure here is honest about ties: a scorer that says the same of everything never reaches 100 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

from t2ialign.evaluation.columns import Array, finite_columns
from t2ialign.evaluation.resampling import Interval, bootstrap

Ties = Literal["wrong", "half"]


def ranked_pairs(scores: Sequence[float], ranks: Sequence[float]) -> tuple[Array, Array]:
    """All pairs of the n images of one prompt -> (margins, preferences), (n (n - 1) / 2,) each.

    ranks: 1 is best, equal ranks are a tie. Raises ValueError for unequal lengths.
    """
    score, rank = finite_columns(scores=scores, ranks=ranks)
    first, second = np.array(list(combinations(range(len(rank)), 2)), dtype=np.int64).reshape(-1, 2).T
    return score[first] - score[second], 0.5 + 0.5 * np.sign(rank[second] - rank[first])


def pair_credits(
    margins: ArrayLike,
    preferences: ArrayLike,
    *,
    ties: Ties = "wrong",
    label_ties: Literal["skip", "count"] = "skip",
    threshold: float = 0.0,
) -> Array:
    """What each pair earns, in [0, 1], NaN where it is skipped; (N,) margins and preferences -> (N,).

    margins: score of the first image minus that of the second; one of size `threshold` or less predicts a
    tie. preferences: 1 where the first is better, 0 the second, 1/2 a tie; any other number counts by its
    side. A predicted tie of a pair that people ordered is "wrong" (0, ImageReward's protocol) or earns
    "half"; pairs that people tied are skipped, or with "count" earn 1 if predicted so and else as much as the
    reverse mistake (PickScore's protocol is "half", "count" and a threshold fitted on validation pairs).
    Raises ValueError for unequal lengths, numbers that are not finite, or no pair with a preference.
    """
    margin, label = finite_columns(margins=margins, preferences=preferences)
    if not ((label >= 0) & (label <= 1)).all():
        raise ValueError(f"got preferences from {label.min():g} to {label.max():g}; expected [0, 1]; rescale")
    predicted = np.sign(margin) * (np.abs(margin) > threshold)
    wanted = np.sign(label - 0.5)
    if not wanted.any():
        raise _no_preference(len(wanted))
    tied = 0.5 if ties == "half" else 0.0
    credits = np.where(predicted == wanted, 1.0, np.where(predicted * wanted < 0, 0.0, tied))
    return credits if label_ties == "count" else np.where(wanted == 0, np.nan, credits)


def pairwise_accuracy(margins: ArrayLike, preferences: ArrayLike, **protocol: Any) -> float:
    """Mean of `pair_credits` over the pairs that count, in [0, 1]; same arguments and errors."""
    return _earned(pair_credits(margins, preferences, **protocol))


def tie_threshold(margins: ArrayLike, preferences: ArrayLike) -> float:
    """The threshold with the most credit under PickScore's protocol, to be fitted on validation pairs."""
    margin, label = finite_columns(margins=margins, preferences=preferences)
    sizes = np.unique(np.abs(margin))
    candidates = np.concatenate([[0.0], (sizes[1:] + sizes[:-1]) / 2, sizes[-1:]])
    scored = [
        pairwise_accuracy(margin, label, ties="half", label_ties="count", threshold=c) for c in candidates
    ]
    return float(candidates[int(np.argmax(scored))])


@dataclass(frozen=True)
class Temperature:
    """P(first is better) = sigmoid(scale x margin); `loss` is the cross-entropy there, ln 2 at scale 0."""

    scale: float
    loss: float

    def probability(self, margins: ArrayLike) -> Array:
        """(N,) margins -> (N,) probabilities that the first image is better."""
        from scipy.special import expit

        return np.asarray(expit(self.scale * np.asarray(margins, np.float64)), np.float64)


def fit_temperature(
    margins: ArrayLike, preferences: ArrayLike, weights: ArrayLike | None = None
) -> Temperature:
    """The one scale that minimises cross-entropy on held-out pairs: Platt's method without an offset.

    preferences (N,) in [0, 1], soft ones too; weights (N,), equal if None. The scale lies in [0, 1e6] over
    the mean size of a margin: pairs that are all right have no best scale, and margins that mislead get 0.
    Raises ValueError for unequal lengths or margins that are all 0. Source: Guo et al. 2017, Platt 1999.
    """
    from scipy.optimize import minimize_scalar

    margin, label = finite_columns(margins=margins, preferences=preferences)
    weight = np.ones_like(label) if weights is None else finite_columns(margins=margins, weights=weights)[1]
    unit = float(np.abs(margin).mean())
    if unit == 0:
        raise ValueError(f"got {len(margin)} margins that are all 0; expected some that differ; use a scorer")

    def loss(scale: float) -> float:
        logit = scale * margin
        entropy = np.logaddexp(0, logit) - label * logit
        return float(np.average(entropy, weights=weight))

    best = minimize_scalar(lambda s: loss(np.exp(s) / unit), bounds=(-12.0, np.log(1e6)), method="bounded")
    scale = float(np.exp(best.x) / unit)
    return Temperature(scale, loss(scale)) if loss(scale) < loss(0.0) else Temperature(0.0, loss(0.0))


def calibration_error(probabilities: ArrayLike, labels: ArrayLike, *, bins: int = 15) -> float:
    """ECE in [0, 1]: mean gap of confidence and frequency over equal bins of (N,) probabilities, by size.

    labels (N,) in [0, 1]. Raises ValueError for probabilities outside [0, 1]. Source: Guo et al. 2017, eq. 3.
    """
    p, label = finite_columns(probabilities=probabilities, labels=labels)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            f"got probabilities from {p.min():g} to {p.max():g}; expected [0, 1]; apply a sigmoid"
        )
    bin_of = np.minimum((p * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_of, weights=p - label, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def report(
    margins: ArrayLike, preferences: ArrayLike, prompts: Sequence[str], *, scale: float | None = None
) -> dict[str, Interval]:
    """The figures of a scorer on held-out pairs (N,), with intervals by prompt.

    "accuracy" (predicted ties wrong), "accuracy_half" (they earn half), and "ece" of sigmoid(scale x margin);
    without a scale the best one for these very pairs, which flatters. Raises ValueError like `pair_credits`.
    """
    margin, label = finite_columns(margins=margins, preferences=preferences)
    credit = {ties: pair_credits(margin, label, ties=ties) for ties in get_args(Ties)}
    p = (fit_temperature(margin, label) if scale is None else Temperature(scale, np.nan)).probability(margin)
    figures: dict[str, Callable[[NDArray[np.int64]], float]] = {
        "accuracy": lambda rows: _earned(credit["wrong"][rows]),
        "accuracy_half": lambda rows: _earned(credit["half"][rows]),
        "ece": lambda rows: calibration_error(p[rows], label[rows]),
    }
    return {name: bootstrap(figure, prompts) for name, figure in figures.items()}


def _earned(credits: Array) -> float:
    """The mean over the pairs that count. Raises ValueError where none does."""
    counted = credits[~np.isnan(credits)]
    if not len(counted):
        raise _no_preference(len(credits))
    return float(counted.mean())


def _no_preference(count: int) -> ValueError:
    return ValueError(f"got {count} ties and no preference; expected one to be right about; add some")
