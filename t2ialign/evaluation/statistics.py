"""Means with confidence intervals, resampled by prompt.

Images of one prompt fail together, so the prompt and not the image is the unit that is drawn: treating
4 images of 100 prompts as 400 independent trials makes an interval up to twice too narrow.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

CHUNK = 4_000_000
"""Prompt draws held in memory at once (32 MB of indices)."""
NORMAL_975 = 1.959963984540054
"""The normal quantile of a two-sided 95 % interval."""


@dataclass(frozen=True)
class Estimate:
    """A mean over `count` values of `prompts` distinct prompts; `low`, `high` are NaN below two prompts."""

    mean: float
    low: float
    high: float
    count: int
    prompts: int

    def to_json(self) -> dict[str, object]:
        """{"mean", "ci95": [low, high] or null, "count", "prompts"}, for a report file."""
        interval = None if math.isnan(self.low) else [self.low, self.high]
        return {"mean": self.mean, "ci95": interval, "count": self.count, "prompts": self.prompts}


def wilson(right: int, count: int, *, prompts: int | None = None) -> Estimate:
    """The share of `count` answers that are right, with Wilson's 95 % interval, never of zero width.

    prompts: where answers of one prompt are no independent trials, how many prompts there are; the interval
    is that of as many trials with this share. Source: Wilson 1927.
    """
    share, trials = right / count, count if prompts is None else prompts
    per_trial = NORMAL_975**2 / trials
    centre = (share + per_trial / 2) / (1 + per_trial)
    half = math.sqrt(per_trial * (share * (1 - share) + per_trial / 4)) / (1 + per_trial)
    return Estimate(share, max(0.0, centre - half), min(1.0, centre + half), count, trials)


def bootstrap_ci(
    values: Sequence[float],
    prompts: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Mean of `values` (N,) and its percentile interval under resampling of whole prompts (N,).

    Values that are all equal give an interval of zero width: the sample then holds no information on the
    spread. Raises ValueError for no values, unequal lengths or a value that is not finite.
    Source: Field and Welsh 2007, "Bootstrapping clustered data" (the cluster bootstrap).
    """
    sums, counts = _by_prompt(values, prompts)
    mean, groups = float(sums.sum() / counts.sum()), len(sums)
    if groups < 2:
        return Estimate(mean, math.nan, math.nan, int(counts.sum()), groups)
    means = np.concatenate(
        [sums[drawn].sum(1) / counts[drawn].sum(1) for drawn in _draws(groups, resamples, seed)]
    )
    tail = (1 - level) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Estimate(mean, float(low), float(high), int(counts.sum()), groups)


def paired_difference(
    values: Sequence[float],
    baseline: Sequence[float],
    prompts: Sequence[str],
    *,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Estimate:
    """Mean of `values - baseline`, where entry i of both comes from the same prompt and seed.

    Pairing removes what the two share (hard prompts, lucky noise), so its interval is narrower than the
    one of two separate means. Raises ValueError like `bootstrap_ci`.
    """
    if len(values) != len(baseline):
        raise ValueError(
            f"got {len(values)} values and {len(baseline)} of the baseline; expected pairs; align"
        )
    change = np.asarray(values, np.float64) - np.asarray(baseline, np.float64)
    return bootstrap_ci(change.tolist(), prompts, level=level, resamples=resamples, seed=seed)


def by_category(
    values: Sequence[float], prompts: Sequence[str], categories: Sequence[str | None], *, seed: int = 0
) -> dict[str, Estimate]:
    """`bootstrap_ci` within each category, in order of first appearance; None is no category."""
    table: dict[str, tuple[list[float], list[str]]] = {}
    for value, prompt, category in zip(values, prompts, categories, strict=True):
        if category is not None:
            inside = table.setdefault(category, ([], []))
            inside[0].append(value)
            inside[1].append(prompt)
    return {name: bootstrap_ci(*inside, seed=seed) for name, inside in table.items()}


def table(title: str, columns: Mapping[str, Mapping[str, Estimate]], *, scale: float = 1.0) -> Table:
    """A terminal table: one row a name (in the order of the first column), one column a mapping."""
    shown = Table(title=title, title_justify="left")
    shown.add_column("")
    for name in columns:
        shown.add_column(name, justify="right")
    for row in dict.fromkeys(name for column in columns.values() for name in column):
        cells = [form(column[row], scale=scale) if row in column else "" for column in columns.values()]
        shown.add_row(row, *cells)
    return shown


def form(estimate: Estimate, *, scale: float = 1.0) -> str:
    """An estimate as text: "0.523 [0.489, 0.557]"; `scale` 100 turns a rate into per cent."""
    digits = 1 if scale >= 100 else 3
    mean, low, high = (f"{scale * v:.{digits}f}" for v in (estimate.mean, estimate.low, estimate.high))
    return f"{mean} (one prompt)" if math.isnan(estimate.low) else f"{mean} [{low}, {high}]"


def _by_prompt(
    values: Sequence[float], prompts: Sequence[str]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Sum and number of the values of each distinct prompt, both (G,)."""
    if not len(values) or len(values) != len(prompts):
        raise ValueError(f"got {len(values)} values of {len(prompts)} prompts; expected one prompt a value")
    array = np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        raise ValueError(
            f"got {int((~np.isfinite(array)).sum())} values that are not finite; drop or fix them"
        )
    index = {prompt: i for i, prompt in enumerate(dict.fromkeys(prompts))}
    groups = np.array([index[prompt] for prompt in prompts])
    return np.bincount(groups, weights=array).astype(np.float64), np.bincount(groups).astype(np.int64)


def _draws(groups: int, resamples: int, seed: int) -> Iterator[NDArray[np.int64]]:
    """Indices (R_i, G) of drawn prompts in chunks of bounded memory, `resamples` rows in all."""
    rng, rows = np.random.default_rng(seed), max(1, CHUNK // groups)
    for start in range(0, resamples, rows):
        yield rng.integers(groups, size=(min(rows, resamples - start), groups))
