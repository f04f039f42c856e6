"""The agreement of a judge of key points with annotations, by kind and over kinds, with intervals."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from rewards.keypoints.taxonomy import kinds
from t2ialign.evaluation.keypoints.accuracy import mean_over_groups
from t2ialign.evaluation.statistics import Estimate, bootstrap_ci, form

OVERALL = "all kinds"


@dataclass(frozen=True)
class Agreement:
    """Agreement over some key points: the share that matches, and the share that the judge gets right."""

    pairs: int
    matching: float
    """Share in [0, 1] that matches: saying so always is right as often."""
    accuracy: Estimate
    balanced: Estimate | None
    """The mean over matches and mismatches of all kinds that have both, None without any; 0.5 is chance."""

    def to_json(self) -> dict[str, object]:
        """Plain JSON."""
        return {
            "pairs": self.pairs,
            "matching": self.matching,
            "accuracy": self.accuracy.to_json(),
            "balanced": None if self.balanced is None else self.balanced.to_json(),
        }


def agreement(
    verdicts: Sequence[bool], truth: Sequence[bool], named: Sequence[str], prompts: Sequence[str]
) -> dict[str, Agreement]:
    """N verdicts, annotations, kinds and prompts -> by kind, in the order of the taxonomy, and `OVERALL`.

    The interval's unit is the prompt. Raises ValueError for no key points or other counts.
    """
    rows = list(zip(verdicts, truth, named, prompts, strict=True))
    parts = {kind: [row for row in rows if row[2] == kind] for kind in kinds()}
    return {name: _over(part) for name, part in (parts | {OVERALL: rows}).items() if part or name == OVERALL}


def markdown(agreements: Mapping[str, Agreement]) -> Iterator[str]:
    """Lines of a table, per cent with 95 % intervals."""
    yield "| key points | pairs | matching, % | right, % | balanced, % |"
    yield "|---|---|---|---|---|"
    for name, one in agreements.items():
        title = kinds()[name].name if name in kinds() else f"**{name}**"
        balanced = "-" if one.balanced is None else form(one.balanced, scale=100)
        right = form(one.accuracy, scale=100)
        yield f"| {title} | {one.pairs} | {100 * one.matching:.1f} | {right} | {balanced} |"


def _over(rows: Sequence[tuple[bool, bool, str, str]]) -> Agreement:
    right, prompts = [float(verdict == true) for verdict, true, _, _ in rows], [row[3] for row in rows]
    labels: dict[str, set[bool]] = {}
    for _, true, kind, _ in rows:
        labels.setdefault(kind, set()).add(true)
    both = [place for place, row in enumerate(rows) if len(labels[row[2]]) == 2]
    groups = [f"{rows[place][2]} {rows[place][1]}" for place in both]
    return Agreement(
        len(rows),
        sum(true for _, true, _, _ in rows) / max(1, len(rows)),
        bootstrap_ci(right, prompts),
        mean_over_groups([right[p] for p in both], groups, [prompts[p] for p in both]) if both else None,
    )
