"""report.html: what an alignment did, as one file that needs no network.

Everything comes in as plain data, so that any verb can write one: build a `Report`, call `write`.
`web/poster.py` draws the same `Report` as an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from t2ialign.evaluation.statistics import Estimate
from t2ialign.io import atomic
from t2ialign.web.charts import Bar, Chart, bars, lines
from t2ialign.web.embedded import Shown, shown
from t2ialign.web.pages import render as render_page

FIXED, BROKEN, PASS, FAIL, OPEN = "fixed", "broken", "passed by both", "failed by both", "no verdict"
"""Outcomes of an image, by the verdicts before and after, in the order in which they are shown."""


@dataclass(frozen=True)
class Headline:
    """One measured quantity: the base model, the aligned one, and the paired difference of the two.

    `scale` multiplies the numbers for display, 100 with `unit` "%" for a rate.
    """

    name: str
    before: Estimate
    after: Estimate
    difference: Estimate
    scale: float = 100.0
    unit: str = "%"

    @property
    def digits(self) -> int:
        """Decimals of its numbers."""
        return 1 if self.scale >= 100 else 3


@dataclass(frozen=True)
class Comparison:
    """The same prompt and seed before and after; `passed` is None where there is no yes or no."""

    prompt: str
    seed: int
    before: Image.Image
    after: Image.Image
    before_passed: bool | None = None
    after_passed: bool | None = None
    before_shows: str = ""
    """What was read in the first image, in words; empty where nobody has read it."""
    after_shows: str = ""

    @property
    def outcome(self) -> str:
        """The outcome of the image."""
        return outcome(self.before_passed, self.after_passed)


@dataclass(frozen=True)
class Report:
    """All that a report shows; an empty section is left out. `summary` is one paragraph of plain text, and
    `chosen` says how the comparisons were chosen.
    """

    title: str
    summary: str
    headlines: Sequence[Headline]
    comparisons: Sequence[Comparison] = ()
    chosen: str = ""
    curve: Chart | None = None
    """The chart that stands right after the images."""
    categories: Sequence[Bar] = ()
    charts: Sequence[Chart] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    before: str = "base"
    after: str = "aligned"
    outcomes: Mapping[str, int] = field(default_factory=dict)
    """How many of all measured images were fixed, broken, passed by both and failed by both."""


def outcome(before: bool | None, after: bool | None) -> str:
    """The outcome of an image whose verdict was `before` and is `after`."""
    if before is None or after is None:
        return OPEN
    return (PASS if before else FIXED) if after else (BROKEN if before else FAIL)


def count_outcomes(before: Sequence[bool], after: Sequence[bool]) -> dict[str, int]:
    """Outcome -> how many images had it, from the verdicts (N,) on the same prompts and seeds.

    Raises ValueError if the two differ in length.
    """
    each = [outcome(*pair) for pair in zip(before, after, strict=True)]
    return {name: each.count(name) for name in (FIXED, BROKEN, PASS, FAIL)}


def write(report: Report, file: Path) -> None:
    """Write the page at once: a reader never sees half of it."""
    atomic.write_text(file, render(report))


def render(report: Report) -> str:
    """The page as HTML text: what was fixed and broken, images, numbers, categories, curves, settings."""
    return render_page(
        "report.html",
        title=report.title,
        lead=report.summary,
        report=report,
        cards=[(item, _sides(item, report)) for item in report.comparisons],
        colours={FIXED: "good", BROKEN: "bad"},
        curve=None if report.curve is None else lines(report.curve),
        categories=bars(report.categories, before=report.before, after=report.after),
        curves=[(chart, lines(chart)) for chart in report.charts],
    )


def _sides(item: Comparison, report: Report) -> list[tuple[str, Shown, bool | None, str]]:
    sides = (
        (report.before, item.before, item.before_passed, item.before_shows),
        (report.after, item.after, item.after_passed, item.after_shows),
    )
    return [
        (name, shown(image, f"{item.prompt}, seed {item.seed}, drawn by the {name} model"), passed, words)
        for name, image, passed, words in sides
    ]
