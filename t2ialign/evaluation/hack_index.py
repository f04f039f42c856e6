"""The hack index: from which step on held-out numbers fall while the trained reward still rises.

Pure functions on numbers, of which more has to be better: held-out rewards, diversity, and their mean.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

SHARE = 0.1
"""A fall below this share of the base's standard deviation over prompts counts as none."""
ERRORS = 2
"""The number of standard errors that a fall has to exceed."""
FEWEST = 5
"""Measurements after the base's below which a run in which nothing fell is too short to tell."""

Series = Mapping[int, Sequence[float]]
"""Step -> the mean score of each prompt's images, prompts in one order; the first step is the base's."""


@dataclass(frozen=True)
class Fall:
    """The fall of a held-out reward, or of the mean of several, below its running best at one step."""

    reward: str
    step: int
    best_step: int
    """The step of the running best, the last one of equals: the reward was still whole there."""
    drop: float
    """Mean over prompts at the best step less that now, in the reward's own units; 0 at the best itself."""
    threshold: float
    """max(0.1 base-std, 2 standard errors of the drop, paired by prompt)."""
    base_std: float
    """The standard deviation of the base's means over prompts."""
    usable: float | None
    """The trained reward's mean at the best step, None without a trained reward."""
    trained: float | None
    """The trained reward's mean now."""

    @property
    def index(self) -> float:
        """The drop in units of its threshold; 0 where the trained reward has not risen since the best."""
        if self.drop <= 0 or not self.rises:
            return 0.0
        return self.drop / self.threshold if self.threshold else math.inf

    @property
    def rises(self) -> bool:
        """Whether the trained reward is higher now than at the best step; True if none is measured."""
        return self.usable is None or self.trained is None or self.trained > self.usable

    @property
    def fired(self) -> bool:
        """Whether the run over-optimises here: an index above 1."""
        return self.index > 1

    def to_json(self) -> dict[str, object]:
        """Every number, for a report file."""
        return asdict(self)


def falls(reward: str, heldout: Series, trained: Series | None = None) -> list[Fall]:
    """One for each step of a held-out reward, in order; without `trained` only its own fall counts.

    Raises ValueError for fewer than two prompts, whose spread nobody knows.
    """
    steps = sorted(heldout)
    if (prompts := len(heldout[steps[0]])) < 2:
        raise ValueError(f"got {prompts} prompt; expected 2 or more; a standard error needs them")
    base_std, result, best = spread(heldout), list[Fall](), steps[0]
    for step in steps:
        if np.mean(heldout[step]) >= np.mean(heldout[best]):
            best = step
        lost = np.subtract(heldout[best], heldout[step])
        error = float(np.std(lost, ddof=1)) / math.sqrt(prompts)
        threshold = max(SHARE * base_std, ERRORS * error)
        then, now = (None if trained is None else float(np.mean(trained[at])) for at in (best, step))
        result.append(Fall(reward, step, best, float(lost.mean()), threshold, base_std, then, now))
    return result


def heldout_mean(members: Sequence[Series]) -> dict[int, list[float]]:
    """Step -> for each prompt, the mean over the members of their change in units of `spread`.

    Members without a spread are left out, and steps that one lacks; empty if fewer than two remain.
    """
    scaled = [_standardised(series) for series in members if spread(series)]
    if len(scaled) < 2:
        return {}
    steps = sorted(set.intersection(*(set(series) for series in scaled)))
    return {step: np.mean([series[step] for series in scaled], axis=0).tolist() for step in steps}


def first_fired(candidates: Iterable[Fall]) -> Fall | None:
    """The earliest fall that fires, of several at one step the one furthest beyond its threshold."""
    return min((f for f in candidates if f.fired), key=lambda fall: (fall.step, -fall.index), default=None)


def best_step(series: Series) -> int:
    """The step with the highest mean, the last one of equals."""
    return max(series, key=lambda step: (np.mean(series[step]), step))


def spread(series: Series) -> float:
    """Standard deviation of the base's means over prompts; 0 for one prompt."""
    base = series[min(series)]
    return float(np.std(base, ddof=1)) if len(base) > 1 else 0.0


def in_base_std(series: Series) -> dict[int, float] | None:
    """Step -> change of the mean from the base, in units of `spread`; None where that is 0."""
    if not spread(series):
        return None
    return {step: float(np.mean(values)) for step, values in sorted(_standardised(series).items())}


def _standardised(series: Series) -> dict[int, list[float]]:
    unit, base = spread(series), float(np.mean(series[min(series)]))
    return {step: ((np.asarray(values) - base) / unit).tolist() for step, values in series.items()}


def words(fall: Fall) -> str:
    """One line for people: which reward fell how far, and what is left of the trained one."""
    unit = f" ({fall.drop / fall.base_std:.2g} base-std)" if fall.base_std else ""
    fell = (
        f"over-optimised at step {fall.step}: held-out {fall.reward} fell {fall.drop:.4g}{unit} below its "
        f"best of step {fall.best_step}, beyond the threshold of {fall.threshold:.4g}"
    )
    if fall.usable is None:
        return f"{fell}; no trained reward is measured, so whether it still rises was not checked"
    return (
        f"{fell}, while the trained reward rose from {fall.usable:.4g} to {fall.trained:.4g}; "
        f"usable reward: {fall.usable:.4g}"
    )


def none_found(measured: int) -> str:
    """The line for a run in which nothing fired, with the number of measurements after the base."""
    if measured < FEWEST:
        return f"too short to tell (measurements after the base: {measured}; it takes {FEWEST} or more)"
    return "no over-optimisation found"
