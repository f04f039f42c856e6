"""Confidence intervals of any figure, by drawing whole prompts with replacement."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from t2ialign.evaluation.columns import rows_by_prompt


@dataclass(frozen=True)
class Interval:
    """A figure with the limits of its confidence interval, NaN for a single prompt."""

    value: float
    low: float
    high: float


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
    groups = list(rows_by_prompt(prompts, len(prompts)).values())
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
