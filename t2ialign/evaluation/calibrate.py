"""How far scores agree with people: accuracy on pairs, ranking per prompt, calibration, agreement of raters.

Every figure here is honest about ties: a scorer that says the same of everything never reaches 100 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Ties = Literal["wrong", "half"]


@dataclass(frozen=True)
class Interval:
    """A figure with the limits of its confidence interval, NaN for a single prompt."""

    value: float
    low: float
    high: float


def ranked_pairs(scores: Sequence[float], ranks: Sequence[float]) -> tuple[Array, Array]:
    """All pairs of the n images of one prompt -> (margins, preferences), (n (n - 1) / 2,) each.

    ranks: 1 is best, equal ranks are a tie. Raises ValueError for unequal lengths.
    """
    score, rank = _rows(scores=scores, ranks=ranks)
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
    margin, label = _rows(margins=margins, preferences=preferences)
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
    margin, label = _rows(margins=margins, preferences=preferences)
    sizes = np.unique(np.abs(margin))
    candidates = np.concatenate([[0.0], (sizes[1:] + sizes[:-1]) / 2, sizes[-1:]])
    scored = [
        pairwise_accuracy(margin, label, ties="half", label_ties="count", threshold=c) for c in candidates
    ]
    return float(candidates[int(np.argmax(scored))])


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


def auroc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve of 0/1 labels (N,); ties count half. Raises ValueError for equal labels."""
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(*_binary(labels, scores)))


def auprc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision of 0/1 labels (N,), ties as one step. Raises ValueError for constant labels."""
    from sklearn.metrics import average_precision_score

    return float(average_precision_score(*_binary(labels, scores)))


def average_precision_at(k: int, labels: ArrayLike, scores: ArrayLike) -> float:
    """Average precision within the k highest scores, over the hits among them: 0 without a hit.

    As in TIA2's AP@k. Ties are one step, and at the cut they give their mean label, so the order of rows
    never matters. Raises ValueError like `auprc`, and for a k below 1.
    """
    if k < 1:
        raise ValueError(f"got k={k}; expected at least 1; AP@k looks at the k best images")
    label, score = _binary(labels, scores)
    steps = -np.unique(-score)  # best first
    sizes = np.array([(score == s).sum() for s in steps])
    hits = np.array([label[score == s].sum() for s in steps])
    taken = np.clip(k - np.concatenate([[0], sizes.cumsum()[:-1]]), 0, sizes)
    hits = hits * taken / sizes
    found, seen = hits.cumsum(), np.maximum(taken.cumsum(), 1)
    return float((hits * found / seen).sum() / found[-1]) if found[-1] else 0.0


def spearman(labels: ArrayLike, scores: ArrayLike) -> float:
    """Rank correlation in [-1, 1]; 0 for constant scores. Raises ValueError for constant labels."""
    from scipy.stats import spearmanr

    return _correlation(spearmanr, labels, scores)


def kendall(labels: ArrayLike, scores: ArrayLike) -> float:
    """Kendall's tau-b in [-1, 1]; 0 for constant scores. Raises ValueError for constant labels."""
    from scipy.stats import kendalltau

    return _correlation(kendalltau, labels, scores)


def per_prompt(
    metric: Callable[[Array, Array], float], labels: ArrayLike, scores: ArrayLike, prompts: Sequence[str]
) -> dict[str, float]:
    """`metric(labels, scores)` within each prompt, in order of appearance; a prompt of equal labels has none.

    Source: the protocol of TIA2, Kim et al. 2024. Raises ValueError for unequal lengths.
    """
    label, score = _rows(labels=labels, scores=scores)
    found: dict[str, float] = {}
    for prompt, rows in _groups(prompts, len(label)).items():
        if np.ptp(label[rows]) > 0:
            found[prompt] = metric(label[rows], score[rows])
    return found


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

    margin, label = _rows(margins=margins, preferences=preferences)
    weight = np.ones_like(label) if weights is None else _rows(margins=margins, weights=weights)[1]
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
    p, label = _rows(probabilities=probabilities, labels=labels)
    if not ((p >= 0) & (p <= 1)).all():
        raise ValueError(
            f"got probabilities from {p.min():g} to {p.max():g}; expected [0, 1]; apply a sigmoid"
        )
    bin_of = np.minimum((p * bins).astype(np.int64), bins - 1)
    gaps = np.bincount(bin_of, weights=p - label, minlength=bins)
    return float(np.abs(gaps).sum() / len(p))


def bootstrap(
    statistic: Callable[[NDArray[np.int64]], float],
    prompts: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Any figure of N rows with its percentile interval, whole prompts drawn with replacement.

    statistic: row numbers -> the figure, e.g. `lambda rows: auroc(labels[rows], scores[rows])`; a draw for
    which it raises ValueError (one class only) is drawn again. Source: Field and Welsh 2007.
    """
    groups = list(_groups(prompts, len(prompts)).values())
    value = statistic(np.arange(len(prompts)))
    if len(groups) < 2:
        return Interval(value, np.nan, np.nan)
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(10 * resamples):
        rows = np.concatenate([groups[i] for i in rng.integers(len(groups), size=len(groups))])
        try:
            drawn.append(statistic(rows))
        except ValueError:
            continue
        if len(drawn) == resamples:
            break
    if len(drawn) < resamples:
        raise ValueError(
            f"got a figure that only {len(drawn)} of {10 * resamples} draws of {len(groups)} prompts have; "
            "expected more prompts of either label; add some"
        )
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def report(
    margins: ArrayLike, preferences: ArrayLike, prompts: Sequence[str], *, scale: float | None = None
) -> dict[str, Interval]:
    """The figures of a scorer on held-out pairs (N,), with intervals by prompt.

    "accuracy" (predicted ties wrong), "accuracy_half" (they earn half), and "ece" of sigmoid(scale x margin);
    without a scale the best one for these very pairs, which flatters. Raises ValueError like `pair_credits`.
    """
    margin, label = _rows(margins=margins, preferences=preferences)
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


def _groups(prompts: Sequence[str], rows: int) -> dict[str, NDArray[np.int64]]:
    """The row numbers of each prompt, in order of appearance."""
    if len(prompts) != rows or not rows:
        raise ValueError(
            f"got {len(prompts)} prompts for {rows} rows; expected one each, at least one; align"
        )
    found: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        found.setdefault(prompt, []).append(row)
    return {prompt: np.array(members, dtype=np.int64) for prompt, members in found.items()}


def _rows(**columns: ArrayLike) -> tuple[Array, ...]:
    """The columns as float64 (N,). Raises ValueError unless they are finite and equally long."""
    arrays = {name: np.asarray(column, np.float64) for name, column in columns.items()}
    shapes = {name: array.shape for name, array in arrays.items()}
    if len(set(shapes.values())) > 1 or any(array.ndim != 1 or not len(array) for array in arrays.values()):
        told = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
        raise ValueError(f"got {told}; expected equal lengths (N,), N at least 1; align the rows")
    for name, array in arrays.items():
        broken = int((~np.isfinite(array)).sum())
        if broken:
            raise ValueError(f"got {broken} {name} that are not finite; expected numbers; drop those rows")
    return tuple(arrays.values())


def _binary(labels: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    label, score = _rows(labels=labels, scores=scores)
    if set(np.unique(label).tolist()) != {0.0, 1.0}:
        found = np.unique(label).tolist()[:5]
        raise ValueError(f"got labels {found}; expected both 0 and 1; one label alone has no ranking")
    return label, score


def _correlation(measure: Callable[..., Any], labels: ArrayLike, scores: ArrayLike) -> float:
    label, score = _rows(labels=labels, scores=scores)
    if np.ptp(label) == 0:
        raise ValueError(f"got {len(label)} equal labels; expected at least two values; there is no order")
    return float(measure(label, score).statistic) if np.ptp(score) else 0.0
