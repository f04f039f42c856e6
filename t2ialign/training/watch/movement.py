"""Warns of a run that does not learn: its margin or reward does not rise above its noise."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from t2ialign.training.log import METRICS, read_rows

if TYPE_CHECKING:
    from t2ialign.training.facts import Facts
    from t2ialign.training.settings import LoopConfig

LEAST = 10
"""A series without errors of its own is judged from so many values on: fewer do not show their spread."""


class Movement:
    """Collects the watched numbers of every step, and judges each of them once, after a tenth of the run.

    watched: the metrics that should rise, each with None, or if it is 0 before training by construction, with
    the least mean that counts. levers: the settings that make them rise, with their values. first: the step
    from which on they are judged. What is said depends on the rows of metrics.jsonl alone, so a resumed run
    goes on as if it had not stopped.
    """

    def __init__(
        self, watched: Mapping[str, float | None], levers: Mapping[str, object], *, first: int
    ) -> None:
        self.levers, self.floors, self.first = levers, dict(watched), first
        self._series: dict[str, list[tuple[float, float]]] = {name: [] for name in watched}

    @classmethod
    def of(cls, cfg: LoopConfig, facts: Facts, *, main: bool) -> Movement:
        """The watcher of a run on its main process, with the rows before a resume, of which it has warned."""
        first = min(cfg.lr_warmup + math.ceil(cfg.max_steps / 10), cfg.max_steps)
        movement, file = cls(facts.watched if main else {}, facts.levers, first=first), cfg.output / METRICS
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
                warnings += self._judged(name, errors, step)
                del self._series[name]
        return warnings

    def _judged(self, name: str, errors: bool, step: int) -> list[str]:
        floor, values = self.floors[name], [value for value, _ in self._series[name]]
        if floor is not None:
            change, error = mean(values)
        else:
            change, error = difference(self._series[name]) if errors else trend(values)
        levers = ", ".join(f"{setting} (now {value})" for setting, value in self.levers.items())
        if not change > 2 * error:
            why = f"has not risen by twice its standard error in {step} steps (change {change:+.3g}, "
            return [f"{name} {why}standard error {error:.3g}): the run may learn nothing; look at {levers}"]
        if floor is not None and change < floor:
            why = f"is {change:.3g} on average over {step} steps, below {floor:.3g}: at this pace"
            return [f"{name} {why} the model will hardly differ from the reference; look at {levers}"]
        return []


def trend(values: Sequence[float]) -> tuple[float, float]:
    """The change of a series over its length by its least-squares line, and that change's standard error.

    With i = 0 .. n - 1, S = sum (i - mean i)^2 = n (n^2 - 1) / 12 and slope b = sum (i - mean i) v_i / S, the
    change is (n - 1) b, and its standard error (n - 1) sqrt(RSS / ((n - 2) S)), RSS the sum of squared
    residuals.
    """
    n = len(values)
    assert n > 2, "two points have no residual"
    middle, spread = math.fsum(values) / n, n * (n * n - 1) / 12
    points = [(i - (n - 1) / 2, value - middle) for i, value in enumerate(values)]  # a constant has slope 0
    slope = math.fsum(x * y for x, y in points) / spread
    residual = math.fsum((y - slope * x) ** 2 for x, y in points)
    return (n - 1) * slope, (n - 1) * math.sqrt(residual / (n - 2) / spread)


def mean(values: Sequence[float]) -> tuple[float, float]:
    """The mean of independent values and its standard error, sqrt(sum (v - mean)^2 / (n - 1) / n)."""
    n, middle = len(values), math.fsum(values) / len(values)
    return middle, math.sqrt(math.fsum((value - middle) ** 2 for value in values) / (n - 1) / n)


def difference(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Last less first of means with standard errors, and its own standard error: they add in squares."""
    (first, before), (last, after) = values[0], values[-1]
    return last - first, math.hypot(before, after)
