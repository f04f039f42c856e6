"""evaluation.html: what `t2ialign evaluate` measured, as one file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from t2ialign.data.images import open_rgb
from t2ialign.evaluation.statistics import Estimate
from t2ialign.io import atomic
from t2ialign.io.inside import lies_within
from t2ialign.web.charts import histogram
from t2ialign.web.embedded import Shown, shown
from t2ialign.web.pages import render

NAME = "evaluation.html"
EXTREMES = 12
"""Images that are shown at each end."""
PROMPTS = 1000
"""Prompts that the table lists; the journal of scores has every image."""
ERRORS = 100
"""Images without a score that are listed."""

Score = Mapping[str, Any]
"""A row of the journal of scores: file, prompt, seed, and score, or error in its place."""
Columns = Mapping[str, Mapping[str, Estimate]]
"""Estimates by column, "scores" and with a baseline "baseline" and "difference", and by row of the table."""


class Side(NamedTuple):
    """Images that were scored: their manifest, or the folder that holds it, and their rows."""

    source: Path
    scores: Sequence[Score]


@dataclass(frozen=True)
class Card:
    """An image, and beside it that of the baseline with the same prompt and seed."""

    row: Score
    images: list[Shown]
    scores: list[float]
    change: float | None


@dataclass(frozen=True)
class Line:
    """The scores of one prompt."""

    prompt: str
    scores: list[float]
    baseline: list[float]

    @property
    def mean(self) -> float:
        """The scores of the images."""
        return sum(self.scores) / len(self.scores)

    @property
    def before(self) -> float | None:
        """The mean of the baseline's images."""
        return sum(self.baseline) / len(self.baseline) if self.baseline else None


def write(folder: Path, reward: str, columns: Columns, side: Side, baseline: Side | None = None) -> Path:
    """Write the page beside the results -> its file.

    An image that lies outside the folder which `side.source` names, or is gone, is left out with its pair.
    """
    file = folder / NAME
    atomic.write_text(file, page(reward, columns, side, baseline))
    return file


def page(reward: str, columns: Columns, side: Side, baseline: Side | None = None) -> str:
    """The page as HTML text: summary, distribution, images at both ends, prompts, and what has no score."""
    whole = [row for row in side.scores if "score" in row]
    before = [row for row in baseline.scores if "score" in row] if baseline else []
    groups = {"images": [row["score"] for row in whole], "baseline": [row["score"] for row in before]}
    drawn = {name: values for name, values in groups.items() if values}
    pairs = {(row["prompt"], row["seed"]): row for row in before}
    changes = [_change(row, pairs) for row in whole]
    known = [change for change in changes if change is not None]
    broken = [row for one in (side, baseline) if one for row in one.scores if "error" in row]
    prompts = _prompts(whole, before)
    return render(
        "evaluation.html",
        title=f"{reward} of {_name(side.source)}",
        lead=_lead(side, baseline, len(broken)),
        reward=reward,
        columns=columns,
        paired=baseline is not None,
        scale=100 if all(value in (0, 1) for values in groups.values() for value in values) else 1,
        changes=[sum(change > 0 for change in known), sum(change < 0 for change in known), len(known)],
        histogram=histogram(drawn, reward) if drawn else None,
        ends=_ends(side, baseline, whole, pairs),
        prompts=prompts[:PROMPTS],
        more_prompts=len(prompts) - PROMPTS,
        errors=broken[:ERRORS],
        more_errors=len(broken) - ERRORS,
    )


def _lead(side: Side, baseline: Side | None, broken: int) -> str:
    prompts = len({row["prompt"] for row in side.scores})
    against = f", against {len(baseline.scores)} of {_name(baseline.source)}" if baseline else ""
    return f"{len(side.scores)} images of {prompts} prompts{against}; {broken} could not be scored."


def _name(source: Path) -> str:
    """The last part of a folder's path, and of a table's with its folder."""
    whole = source.resolve()
    return whole.name if source.is_dir() else f"{whole.parent.name}/{whole.name}"


def _change(row: Score, pairs: Mapping[Any, Score]) -> float | None:
    other = pairs.get((row["prompt"], row["seed"]))
    return None if other is None else float(row["score"] - other["score"])


def _prompts(whole: Sequence[Score], before: Sequence[Score]) -> list[Line]:
    """The lowest mean first."""
    lines: dict[str, Line] = {}
    for row in whole:
        lines.setdefault(row["prompt"], Line(row["prompt"], [], [])).scores.append(row["score"])
    for row in before:
        if row["prompt"] in lines:
            lines[row["prompt"]].baseline.append(row["score"])
    return sorted(lines.values(), key=lambda line: line.mean)


def _ends(
    side: Side, baseline: Side | None, whole: Sequence[Score], pairs: Mapping[Any, Score]
) -> dict[str, list[Card]]:
    """Title -> images of the largest and the smallest score, or of the largest rise and fall."""
    if baseline:
        changes = [(change, row) for row in whole if (change := _change(row, pairs))]
        titles = ("Largest rises over the baseline", "Largest falls below the baseline")
        best = sorted((pair for pair in changes if pair[0] > 0), key=lambda pair: -pair[0])
        worst = sorted((pair for pair in changes if pair[0] < 0), key=lambda pair: pair[0])
    else:
        ranked = sorted(((row["score"], row) for row in whole), key=lambda pair: -pair[0])
        titles, half = ("Best images", "Worst images"), (len(ranked) + 1) // 2
        best, worst = ranked[:half], ranked[half:][::-1]
    return {
        title: [card for _, row in part[:EXTREMES] if (card := _card(row, side, baseline, pairs)) is not None]
        for title, part in zip(titles, (best, worst), strict=True)
    }


def _card(row: Score, side: Side, baseline: Side | None, pairs: Mapping[Any, Score]) -> Card | None:
    images, scores = [_image(side.source, row)], [row["score"]]
    if baseline:
        other = pairs[row["prompt"], row["seed"]]
        images.insert(0, _image(baseline.source, other))
        scores.insert(0, other["score"])
    whole = [image for image in images if image is not None]
    return Card(row, whole, scores, _change(row, pairs)) if len(whole) == len(images) else None


def _image(source: Path, row: Score) -> Shown | None:
    """None if it cannot be read, or if it lies outside the folder `source`, which may come from others."""
    file = (source if source.is_dir() else source.parent) / row["file"]
    if source.is_dir() and not lies_within(source, file):
        return None
    with suppress(ValueError):
        return shown(open_rgb(file), f"{row['prompt']}, seed {row['seed']}")
    return None
