"""Whether a run has begun to learn: a margin or a reward that does not rise above its noise is warned of."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from t2ialign.trainers.log import METRICS, read_rows

if TYPE_CHECKING:
    from t2ialign.trainers.base import Loop
    from t2ialign.trainers.facts import Facts

LEAST = 10
"""A series without errors of its own is judged from so many values on: fewer do not show their spread."""


class Movement:
    """Collects the watched numbers of every step, and judges each of them once, after a tenth of the run.

    watched: the metrics that should rise. levers: the settings that make them rise, with their values. What
    is judged depends on the rows of metrics.jsonl alone, so a resumed run goes on as if it had not stopped.
    """

    def __init__(self, watched: Sequence[str], levers: Mapping[str, object], max_steps: int) -> None:
        self.levers, self.first = levers, math.ceil(max_steps / 10)
        self._series: dict[str, list[tuple[float, float]]] = {name: [] for name in watched}

    @classmethod
    def of(cls, loop: Loop[Any, Any], facts: Facts) -> Movement:
        """Of a run on its main process, with the rows it had before it was resumed; they warned already."""
        main, file = loop.accelerator.is_main_process, loop.cfg.output / METRICS
        movement = cls(facts.watched if main else (), facts.levers, loop.cfg.max_steps)
        for row in read_rows(file) if main and file.exists() else []:
            movement.add(int(row["step"]), row)
        return movement

    def add(self, step: int, row: Mapping[str, float]) -> list[str]:
        """Count in the row of one step, from 1 on -> a warning for each metric that is due and has not risen.

        A metric `name` may come with its standard error as `name_error`; two values are then enough.
        """
        warnings = []
        for name, values in list(self._series.items()):
            if math.isfinite(row.get(name, math.nan)):
                values.append((row[name], row.get(f"{name}_error", math.nan)))
            errors = all(math.isfinite(error) for _, error in values)
            if step >= self.first and len(values) >= (2 if errors else LEAST):
                del self._series[name]
                change, error = difference(values) if errors else trend([value for value, _ in values])
                if not change > 2 * error:
                    warnings.append(self._warning(name, change, error, step))
        return warnings

    def _warning(self, name: str, change: float, error: float, step: int) -> str:
        levers = ", ".join(f"{setting} (now {value})" for setting, value in self.levers.items())
        return (
            f"{name} has not risen by twice its standard error in {step} steps (change {change:+.3g}, "
            f"standard error {error:.3g}): the run may be learning nothing; look at {levers}"
        )


def trend(values: Sequence[float]) -> tuple[float, float]:
    """The change of a series over its length by its least-squares line, and that change's standard error.

    With i = 0 .. n - 1, S = sum (i - mean i)^2 = n (n^2 - 1) / 12 and slope b = sum (i - mean i) v_i / S, the
    change is (n - 1) b, and its standard error (n - 1) sqrt(RSS / ((n - 2) S)), RSS the sum of squared
    residuals.
    """
    n = len(values)
    assert n > 2, "two points have no residual"
    mean, spread = math.fsum(values) / n, n * (n * n - 1) / 12
    points = [(i - (n - 1) / 2, value - mean) for i, value in enumerate(values)]  # a constant has slope 0
    slope = math.fsum(x * y for x, y in points) / spread
    residual = math.fsum((y - slope * x) ** 2 for x, y in points)
    return (n - 1) * slope, (n - 1) * math.sqrt(residual / (n - 2) / spread)


def difference(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Last less first of means with standard errors, and its own standard error: they add in squares."""
    (first, before), (last, after) = values[0], values[-1]
    return last - first, math.hypot(before, after)
