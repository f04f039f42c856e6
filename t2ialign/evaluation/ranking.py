"""How well scores rank images by their labels: ROC, precision and rank correlation, overall or per prompt.

Every figure is honest about ties: a scorer that says the same of everything never reaches 100 %.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from t2ialign.evaluation.columns import Array, finite_columns, rows_by_prompt


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
    hits_so_far, seen = hits.cumsum(), np.maximum(taken.cumsum(), 1)
    return float((hits * hits_so_far / seen).sum() / hits_so_far[-1]) if hits_so_far[-1] else 0.0


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
    label, score = finite_columns(labels=labels, scores=scores)
    values: dict[str, float] = {}
    for prompt, rows in rows_by_prompt(prompts, len(label)).items():
        if np.ptp(label[rows]) > 0:
            values[prompt] = metric(label[rows], score[rows])
    return values


def _binary(labels: ArrayLike, scores: ArrayLike) -> tuple[Array, Array]:
    label, score = finite_columns(labels=labels, scores=scores)
    if set(np.unique(label).tolist()) != {0.0, 1.0}:
        several = np.unique(label).tolist()[:5]
        raise ValueError(f"got labels {several}; expected both 0 and 1; one label alone has no ranking")
    return label, score


def _correlation(measure: Callable[..., Any], labels: ArrayLike, scores: ArrayLike) -> float:
    label, score = finite_columns(labels=labels, scores=scores)
    if np.ptp(label) == 0:
        raise ValueError(f"got {len(label)} equal labels; expected at least two values; there is no order")
    return float(measure(label, score).statistic) if np.ptp(score) else 0.0
