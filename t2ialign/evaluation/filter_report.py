"""The report of a filter by the gaps of three rewards, with the figures to choose its limits by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from t2ialign.data.consistent_filter import TIE, Limits, allowed, dropped_by
from t2ialign.evaluation.calibrate import pairwise_accuracy

QUANTILES = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
SHOWN = ("0.05", "0.25", "0.5", "0.75", "0.95")
"""Quantiles on the terminal."""

Part = dict[str, Any]
"""{"pairs", "kept", "dropped_by", "rewards": {name: figures of its gaps}}."""


def summarise(
    names: Sequence[str], gaps: NDArray[np.float64], preferences: NDArray[np.float64], limits: Limits
) -> dict[str, Part]:
    """Gaps (N, 3), preferences (N,) in [1/2, 1] -> figures of the "preferences" and of the "ties" among them.

    Both have quantiles of the gaps (of their sizes for ties), and preferences the accuracy of each reward,
    equal scores counting as wrong. A figure of no pairs is None. Raises ValueError like `allowed`.
    """
    allows, tie = allowed(gaps, preferences, limits), preferences == TIE
    won = _part(names, gaps[~tie], gaps[~tie], allows[~tie], limits.floors)
    tied = _part(names, gaps[tie], np.abs(gaps[tie]), allows[tie], limits.ties)
    for place, name in enumerate(names):
        margins, labels = gaps[~tie, place], preferences[~tie]
        won["rewards"][name]["accuracy"] = pairwise_accuracy(margins, labels) if len(labels) else None
    return {"preferences": won, "ties": tied}


def table(parts: Mapping[str, Part]) -> Table:
    """The report as text for a terminal: a column a reward, ties, if any, below the preferences."""
    shown = Table(title="gap = score(winner) - score(loser)", title_justify="left")
    shown.add_column("")
    for name in parts["preferences"]["rewards"]:
        shown.add_column(name, justify="right", overflow="fold")
    for part, sized, limit in ((parts["preferences"], "gap", "floor"), (parts["ties"], "tie", "width")):
        for label, cells in _rows(part, sized, limit) if part["pairs"] else ():
            shown.add_row(label, *cells)
        shown.add_section()
    return shown


def _rows(part: Part, sized: str, limit: str) -> Iterator[tuple[str, list[str]]]:
    rewards = part["rewards"].values()
    if sized == "gap":
        yield "right", [f"{100 * figures['accuracy']:.1f} %" for figures in rewards]
    yield f"{sized}, sd", [f"{figures['std']:.3g}" for figures in rewards]
    for q in SHOWN:
        yield f"{sized}, {100 * float(q):g} %", [f"{figures['quantiles'][q]:.3g}" for figures in rewards]
    yield limit, [f"{figures['limit']:g}" for figures in rewards]
    yield "dropped", [str(figures["dropped"]) for figures in rewards]
    yield "by it alone", [str(figures["alone"]) for figures in rewards]


def _part(
    names: Sequence[str],
    gaps: NDArray[np.float64],
    sizes: NDArray[np.float64],
    allows: NDArray[np.bool_],
    limits: Sequence[float],
) -> Part:
    alone = dropped_by(allows, names)
    rewards = {
        name: {
            "limit": limits[place],
            "dropped": int((~allows[:, place]).sum()),
            "alone": alone[name],
            "mean": float(gaps[:, place].mean()) if len(gaps) else None,
            "std": float(gaps[:, place].std()) if len(gaps) else None,
            "quantiles": _quantiles(sizes[:, place]),
        }
        for place, name in enumerate(names)
    }
    passed = int(allows.all(1).sum())
    return {"pairs": len(gaps), "kept": passed, "dropped_by": alone, "rewards": rewards}


def _quantiles(values: NDArray[np.float64]) -> dict[str, float | None]:
    if not len(values):
        return {f"{q:g}": None for q in QUANTILES}
    return {f"{q:g}": float(v) for q, v in zip(QUANTILES, np.quantile(values, QUANTILES), strict=True)}
