"""Accuracy on key points: by kind, category and image, and over kinds, resampled by prompt."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rewards.keypoints.taxonomy import categories, kinds
from rewards.keypoints.verdicts import SHOWN
from t2ialign.evaluation.statistics import Estimate, bootstrap_ci, by_category

RESAMPLES = 10_000
CHUNK = 4_000_000
"""Numbers drawn at once (32 MB)."""


@dataclass(frozen=True)
class Judged:
    """One key point on one image; `match` is in [0, 1], or None where the judge's answer was unreadable."""

    image: str
    """The identity of the image."""
    prompt: str
    kind: str
    match: float | None

    @property
    def correct(self) -> bool | None:
        """Whether the image shows it, by `verdicts.SHOWN`; None where nobody can say."""
        return None if self.match is None else self.match > SHOWN


@dataclass(frozen=True)
class Accuracy:
    """Shares in [0, 1] with intervals; empty, or None, where nothing was readable."""

    kinds: dict[str, Estimate]
    """The accuracy of each kind by id, in the order of the taxonomy."""
    categories: dict[str, Estimate]
    """The accuracy over all key points of a category."""
    points: Estimate | None
    """The accuracy over all key points."""
    over_kinds: Estimate | None
    """The unweighted mean over the kinds."""
    images: Estimate | None
    """The share of images with all key points correct."""

    def to_json(self) -> dict[str, Any]:
        """Plain JSON."""
        lone = {"points": self.points, "over_kinds": self.over_kinds, "pictures": self.images}
        return {
            "kinds": {name: one.to_json() for name, one in self.kinds.items()},
            "categories": {name: one.to_json() for name, one in self.categories.items()},
            **{name: None if one is None else one.to_json() for name, one in lone.items()},
        }


def accuracy(judged: Sequence[Judged], *, unreadable_is_wrong: bool = False) -> Accuracy:
    """The accuracies of judged key points; the interval's unit is the prompt.

    Unreadable answers are left out, and so are images of which all that could be read is correct but not
    all could be read. With `unreadable_is_wrong` they count as wrong, as in the official script.
    """
    read = [(one, bool(one.correct)) for one in judged if unreadable_is_wrong or one.correct is not None]
    whole = list(_images(judged, unreadable_is_wrong=unreadable_is_wrong))
    values, prompts = [float(right) for _, right in read], [one.prompt for one, _ in read]
    named = [one.kind for one, _ in read]
    by_kind = by_category(values, prompts, named)
    grouped = by_category(values, prompts, [kinds()[kind].category for kind in named])
    return Accuracy(
        kinds={kind: by_kind[kind] for kind in kinds() if kind in by_kind},
        categories={name: grouped[name] for name in categories() if name in grouped},
        points=bootstrap_ci(values, prompts) if values else None,
        over_kinds=mean_over_groups(values, named, prompts) if values else None,
        images=bootstrap_ci([v for v, _ in whole], [p for _, p in whole]) if whole else None,
    )


def mean_over_groups(
    values: Sequence[float],
    groups: Sequence[str],
    prompts: Sequence[str],
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> Estimate:
    """The mean of the groups' means of values (N,), each group with equal weight, and its interval.

    Prompts (N,) are resampled whole; a group that a resample lacks is left out of its mean. Raises ValueError
    for no values.
    """
    if not len(values) or not len(values) == len(groups) == len(prompts):
        raise ValueError(
            f"got {len(values)} values, {len(groups)} groups, {len(prompts)} prompts; expected one each"
        )
    row, column = _numbered(prompts), _numbered(groups)
    sums, counts = np.zeros((2, int(row.max()) + 1, int(column.max()) + 1))
    np.add.at(sums, (row, column), np.asarray(values, np.float64))
    np.add.at(counts, (row, column), 1.0)
    mean = float((sums.sum(0) / counts.sum(0)).mean())
    units = len(sums)
    if units < 2:
        return Estimate(mean, math.nan, math.nan, len(values), units)
    draw, size = np.random.default_rng(seed), max(1, CHUNK // units)
    means = []
    for start in range(0, resamples, size):
        times = draw.multinomial(units, np.full(units, 1 / units), size=min(size, resamples - start))
        had = times @ counts
        each = np.divide(times @ sums, had, out=np.full_like(had, np.nan), where=had > 0)
        means.append(np.nanmean(each, axis=1))
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return Estimate(mean, float(low), float(high), len(values), units)


def _numbered(names: Sequence[str]) -> np.ndarray:
    """(N,) numbers from 0 in order of first appearance."""
    number = {name: place for place, name in enumerate(dict.fromkeys(names))}
    return np.array([number[name] for name in names])


def _images(judged: Iterable[Judged], *, unreadable_is_wrong: bool) -> Iterator[tuple[float, str]]:
    """(1 if all key points of an image are correct, its prompt) of images of which that can be said."""
    seen: dict[tuple[str, str], list[bool | None]] = {}
    for one in judged:
        seen.setdefault((one.image, one.prompt), []).append(one.correct)
    for (_, prompt), answers in seen.items():
        if unreadable_is_wrong or False in answers or None not in answers:
            yield float(all(answers)), prompt
