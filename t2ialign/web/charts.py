"""Charts as inline SVG: lines over training steps, rates by category, distributions; all with intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import TYPE_CHECKING, Any

from t2ialign.evaluation.statistics import Estimate
from t2ialign.web.drawing import HEIGHT, WIDTH, Drawing, Point
from t2ialign.web.pages import part

if TYPE_CHECKING:
    from markupsafe import Markup

# Okabe and Ito's vermilion and blue: told apart under every common colour blindness and in grey print.
BEFORE, AFTER = "vermilion", "blue"
COLOURS = (AFTER, BEFORE, "green", "grey", "purple", "orange", "sky", "brown")
"""Colours of the curves of one chart, in order, as the stylesheet names them; no chart has more."""
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 12, 40
BAR, ROW = 15, 46
MANY = 60
"""A line of more points than this is drawn faintly, with its running mean on top."""
BINS = 24
"""The number of bars of a histogram."""

Axis = Callable[[float], float]


@dataclass(frozen=True)
class Curve:
    """One line of a chart: `values[i]` after step `steps[i]`, with the interval `lows[i]` to `highs[i]`."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]
    lows: Sequence[float] = ()
    """Empty, as `highs`, for a curve without an interval; NaN where a value has none."""
    highs: Sequence[float] = ()


@dataclass(frozen=True)
class Chart:
    """Curves that share axes; `note` says below the title how to read them."""

    title: str
    curves: Sequence[Curve]
    note: str = ""
    across: str = "step"
    """The quantity on the horizontal axis."""


@dataclass(frozen=True)
class Bar:
    """One category's rate in [0, 1] before and after."""

    name: str
    before: Estimate
    after: Estimate


@dataclass(frozen=True)
class Frame:
    """The ranges of the axes of a chart."""

    left: float
    right: float
    bottom: float
    top: float


def curves(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[Curve]:
    """Curves out of `metrics.jsonl` rows, which carry "step": `names` maps a key to its label.

    Keys that were never logged are left out, and so are rows without the key.
    """
    read = []
    for key, label in names.items():
        logged = [row for row in rows if row.get(key) is not None]
        if logged:
            read.append(Curve(label, [row["step"] for row in logged], [row[key] for row in logged]))
    return read


def frame(charts: Sequence[Chart]) -> Frame | None:
    """The span of all curves and intervals of some charts, so that they can be compared by eye.

    None if no value is finite.
    """
    drawn = [_finite(curve) for chart in charts for curve in chart.curves]
    steps = [step for curve in drawn for step in curve.steps]
    spans = [curve.values for curve in drawn] + [side for c in drawn for side in (c.lows, c.highs)]
    values = [value for span in spans for value in span if math.isfinite(value)]
    return Frame(min(steps), max(steps), min(values), max(values)) if steps else None


def lines(chart: Chart, shared: Frame | None = None) -> Markup:
    """The chart as legend and <svg>, with the axes of `shared`; values that are not finite are left out."""
    drawing = drawn_lines(chart, shared)
    return part("nothing") if drawing is None else drawing.markup()


def drawn_lines(chart: Chart, shared: Frame | None = None) -> Drawing | None:
    """The parts of that chart; None if no value is finite."""
    drawn = [_finite(curve) for curve in chart.curves]
    spans = shared or frame([chart])
    if spans is None or not any(curve.steps for curve in drawn):
        return None
    y_ticks = ticks(spans.bottom, spans.top)
    x_of = _axis(spans.left, max(spans.right, spans.left + 1), LEFT, WIDTH - RIGHT)
    y_of = _axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    says = ", ".join(f"{c.name} from {c.values[0]:.3g} to {c.values[-1]:.3g}" for c in drawn if c.values)
    drawing = Drawing(f"{chart.title}: {says}")
    _axes(drawing, y_ticks, y_of, chart.across)
    _mark_across(drawing, ticks(spans.left, spans.right), x_of, spans)
    for curve, colour in zip(drawn, cycle(COLOURS), strict=False):
        drawing.name(curve.name, colour)
        _curve(drawing, curve, x_of, y_of, colour)
    return drawing


def bars(rows: Sequence[Bar], *, before: str, after: str) -> Markup:
    """Rates by category as legend and <svg>: two bars a category, whiskers are the intervals."""
    says = "; ".join(f"{r.name}: {before} {r.before.mean:.1%}, {after} {r.after.mean:.1%}" for r in rows)
    drawing = Drawing(says, TOP + ROW * len(rows) + BOTTOM - 12)
    left = 16 + 7.5 * max((len(row.name) for row in rows), default=0)
    x_of = _axis(0, 1, left, WIDTH - 58)
    drawing.name(before, BEFORE)
    drawing.name(after, AFTER)
    for mark in (0, 0.25, 0.5, 0.75, 1):
        drawing.rule(x_of(mark), TOP, x_of(mark), drawing.height - BOTTOM + 12)
        drawing.write(x_of(mark), drawing.height - 8, f"{100 * mark:.0f} %", "middle")
    for index, row in enumerate(rows):
        top = TOP + ROW * index + 6
        drawing.write(left - 8, top + BAR + 6, row.name, "end")
        _bar(drawing, row.before, top, x_of, BEFORE)
        _bar(drawing, row.after, top + BAR + 3, x_of, AFTER)
    return drawing.markup()


def histogram(values: Mapping[str, Sequence[float]], across: str) -> Markup:
    """How often each value occurs, by name of the set (two at most), as legend and <svg>."""
    marks = ticks(min(map(min, values.values())), max(map(max, values.values())))
    low, high = marks[0], marks[-1]
    counts = {name: _counts(each, low, high) for name, each in values.items()}
    y_ticks = ticks(0, max(max(each) for each in counts.values()))
    x_of, y_of = (
        _axis(low, high, LEFT, WIDTH - RIGHT),
        _axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP),
    )
    says = ", ".join(f"{len(each)} of {name}" for name, each in values.items())
    drawing = Drawing(f"Distribution of {across}: {says}")
    _axes(drawing, y_ticks, y_of, across)
    _mark_across(drawing, marks, x_of, Frame(low, high, 0, 0))
    width = (x_of(high) - x_of(low)) / BINS / len(counts)
    for place, (name, each) in enumerate(counts.items()):
        drawing.name(name, COLOURS[place])
        for number, count in enumerate(each):
            left = x_of(low) + width * (number * len(counts) + place)
            drawing.bar((left, y_of(count)), width - 1, y_of(0) - y_of(count), COLOURS[place])
    return drawing.markup()


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from at or below `low` to at or above `high`."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def _finite(curve: Curve) -> Curve:
    places = [place for place, value in enumerate(curve.values) if math.isfinite(value)]
    steps, values, lows, highs = (
        [side[place] for place in places] if side else []
        for side in (curve.steps, curve.values, curve.lows, curve.highs)
    )
    return Curve(curve.name, steps, values, lows, highs)


def _running_mean(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of a twentieth of the line, shorter at its ends."""
    reach = len(values) // 40
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _counts(values: Sequence[float], low: float, high: float) -> list[int]:
    counts = [0] * BINS
    for value in values:
        counts[min(BINS - 1, int((value - low) / (high - low) * BINS))] += 1
    return counts


def _axis(low: float, high: float, start: float, end: float) -> Axis:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _axes(drawing: Drawing, y_ticks: Sequence[float], y_of: Axis, across: str) -> None:
    for value in y_ticks:
        drawing.rule(LEFT, y_of(value), WIDTH - RIGHT, y_of(value))
        drawing.write(LEFT - 8, y_of(value) + 4, f"{value:.6g}", "end")
    drawing.write((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, across, "middle")


def _mark_across(drawing: Drawing, marks: Sequence[float], x_of: Axis, spans: Frame) -> None:
    for value in marks:
        if spans.left <= value <= spans.right:
            drawing.write(x_of(value), HEIGHT - BOTTOM + 18, f"{value:.6g}", "middle")


def _curve(drawing: Drawing, curve: Curve, x_of: Axis, y_of: Axis, colour: str) -> None:
    def points(values: Sequence[float]) -> list[Point]:
        pairs = zip(curve.steps, values, strict=True)
        return [(x_of(step), y_of(value)) for step, value in pairs if math.isfinite(value)]

    if any(map(math.isfinite, curve.lows)):
        drawing.band([*points(curve.highs), *reversed(points(curve.lows))], colour)
    if len(curve.values) <= MANY:
        drawing.line(points(curve.values), colour)
    else:
        drawing.line(points(curve.values), colour, style="faint")
        drawing.line(points(_running_mean(curve.values)), colour)


def _bar(drawing: Drawing, value: Estimate, top: float, x_of: Axis, colour: str) -> None:
    middle, end = top + BAR / 2, x_of(value.mean)
    drawing.bar((x_of(0), top), max(end - x_of(0), 1), BAR, colour)
    if not math.isnan(value.low):
        low, high = x_of(value.low), x_of(value.high)
        drawing.whisker(f"M{low:.1f} {middle}H{high:.1f}m0 -4v8M{low:.1f} {middle - 4}v8")
        end = max(high, end)
    drawing.write(end + 6, middle + 4, f"{100 * value.mean:.1f} %", "start")
