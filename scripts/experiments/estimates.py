"""Statistics of claims: pool the seeds, estimate means and paired differences, judge, draw."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from scripts.experiments.claim import Figure, Row
from t2ialign.evaluation.statistics import Estimate, bootstrap_ci, paired_difference
from t2ialign.web.charts import Bar, Chart, Curve, bars, lines

Points = Mapping[int, float] | Mapping[float, float]
"""x -> y."""


@dataclass(frozen=True)
class Table:
    """Columns of N values each; `units` (N,) are what the bootstrap draws, such as prompts."""

    units: Sequence[str]
    columns: Mapping[str, Sequence[float]]

    @classmethod
    def pooled(cls, seeds: Iterable[int], tables: Iterable[Table]) -> Table:
        """One table of those of all seeds, which have the same columns; units of two seeds are never one."""
        pairs = list(zip(seeds, tables, strict=True))
        names = list(pairs[0][1].columns)
        return cls(
            [f"{seed} {unit}" for seed, table in pairs for unit in table.units],
            {name: [value for _, table in pairs for value in table.columns[name]] for name in names},
        )

    @classmethod
    def of(
        cls,
        seeds: Iterable[int],
        results: Sequence[Mapping[str, Any]],
        columns: Callable[[Mapping[str, Any]], Mapping[str, Sequence[float]]],
        units: str = "prompts",
    ) -> Table:
        """`pooled`, of columns that are made from the result of each seed, which has the units too."""
        return cls.pooled(seeds, [cls(result[units], columns(result)) for result in results])

    def mean(self, name: str) -> Estimate:
        """The mean of a column."""
        return bootstrap_ci(self.columns[name], self.units)

    def means(self) -> dict[str, Estimate]:
        """The mean of every column."""
        return {name: self.mean(name) for name in self.columns}

    def difference(self, name: str, baseline: str) -> Estimate:
        """The mean of one column less another, value by value."""
        return paired_difference(self.columns[name], self.columns[baseline], self.units)

    def where(self, chosen: Sequence[bool]) -> Table:
        """The rows that are chosen (N,)."""
        places = [place for place, one in enumerate(chosen) if one]
        columns = {name: [values[place] for place in places] for name, values in self.columns.items()}
        return Table([self.units[place] for place in places], columns)

    def by(self, labels: Sequence[str]) -> dict[str, Table]:
        """A table for each distinct label (N,), in alphabetical order."""
        return {label: self.where([one == label for one in labels]) for label in sorted(set(labels))}


def judged(text: str, measured: Mapping[str, Any], decisive: Estimate | None, holds: bool) -> Row:
    """A row; `measured` may hold estimates at any depth, and `decisive` is the one whose interval decides."""
    known = decisive is not None and not math.isnan(decisive.low)
    return Row(text, as_json(measured), (decisive.low, decisive.high) if decisive and known else None, holds)


def as_json(value: Any) -> Any:
    """The value with every estimate in it as a report file holds it."""
    if isinstance(value, Estimate):
        return value.to_json()
    if isinstance(value, Mapping):
        return {name: as_json(one) for name, one in value.items()}
    return [as_json(one) for one in value] if isinstance(value, list | tuple) else value


def average(values: Sequence[float]) -> float:
    """The mean of at least one number."""
    return sum(values) / len(values)


def bar_figure(
    title: str,
    pairs: Mapping[str, tuple[Estimate, Estimate]],
    *,
    before: str,
    after: str,
    note: str = "whiskers: 95 %",
) -> Figure:
    """A bar chart, two bars for each name."""
    return Figure(
        title, bars([Bar(name, *pair) for name, pair in pairs.items()], before=before, after=after), note
    )


def line_figure(title: str, curves: Mapping[str, Points], note: str = "", *, across: str = "step") -> Figure:
    """A chart of curves, each from x to y; `across` says what x is."""
    drawn = [Curve(name, list(points), list(points.values())) for name, points in curves.items()]
    return Figure(title, lines(Chart(title, drawn, across=across)), note)
