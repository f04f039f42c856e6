"""Charts as inline SVG text: lines over training steps, and rates by category with their intervals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from t2ialign.evaluation.statistics import Estimate
from t2ialign.web.markup import escaped

# Okabe and Ito's vermilion and blue: told apart under every common colour blindness and in grey print.
BEFORE, AFTER = "#d55e00", "#0072b2"
COLOURS = (AFTER, BEFORE, "#009e73", "#5f6368", "#cc79a7", "#e69f00", "#56b4e9")
"""Of the curves of one chart, in order; there are no more of them than this."""
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 250, 58, 16, 12, 40
BAR, ROW = 15, 46
MANY = 60
"""A line of more points than this is drawn faintly, with its running mean on top."""

Axis = Callable[[float], float]


@dataclass(frozen=True)
class Curve:
    """One line of a chart: `values[i]` was measured after step `steps[i]`."""

    name: str
    steps: Sequence[float]
    values: Sequence[float]


@dataclass(frozen=True)
class Chart:
    """Curves that share axes; `note` says below the title how to read them."""

    title: str
    curves: Sequence[Curve]
    note: str = ""
    across: str = "step"
    """What the horizontal axis counts."""


@dataclass(frozen=True)
class Bar:
    """One category's rate in [0, 1] before and after."""

    name: str
    before: Estimate
    after: Estimate


def curves(rows: Sequence[Mapping[str, Any]], names: Mapping[str, str]) -> list[Curve]:
    """Curves out of `metrics.jsonl` rows, which carry "step": `names` maps a key to its label.

    Keys that were never logged are left out, and so are rows without the key.
    """
    found = []
    for key, label in names.items():
        logged = [row for row in rows if row.get(key) is not None]
        if logged:
            found.append(Curve(label, [row["step"] for row in logged], [row[key] for row in logged]))
    return found


def lines(chart: Chart) -> str:
    """The chart as legend and <svg>; values that are not finite are left out."""
    drawn = [_finite(curve) for curve in chart.curves]
    steps = [step for curve in drawn for step in curve.steps]
    values = [value for curve in drawn for value in curve.values]
    if not steps:
        return "<p>Nothing was logged.</p>"
    y_ticks = ticks(min(values), max(values))
    x_of = _axis(min(steps), max(max(steps), min(steps) + 1), LEFT, WIDTH - RIGHT)
    y_of = _axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    body = [_grid_line(LEFT, y_of(v), WIDTH - RIGHT, y_of(v)) for v in y_ticks]
    body += [_text(LEFT - 8, y_of(v) + 4, f"{v:.6g}", "end") for v in y_ticks]
    inside = [v for v in ticks(min(steps), max(steps)) if min(steps) <= v <= max(steps)]
    body += [_text(x_of(v), HEIGHT - BOTTOM + 18, f"{v:.6g}", "middle") for v in inside]
    body.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 4, chart.across, "middle"))
    for curve, colour in zip(drawn, COLOURS, strict=False):
        body += _line(curve, x_of, y_of, colour)
    says = ", ".join(f"{c.name} from {c.values[0]:.3g} to {c.values[-1]:.3g}" for c in drawn if c.values)
    return _legend([c.name for c in drawn], COLOURS) + _svg(body, f"{chart.title}: {says}", HEIGHT)


def bars(rows: Sequence[Bar], *, before: str, after: str) -> str:
    """Rates by category as legend and <svg>: two bars a category, whiskers are the intervals."""
    height = TOP + ROW * len(rows) + BOTTOM - 12
    left = 16 + 7.5 * max((len(row.name) for row in rows), default=0)
    x_of = _axis(0, 1, left, WIDTH - 58)
    marks = (0, 0.25, 0.5, 0.75, 1)
    body = [_grid_line(x_of(v), TOP, x_of(v), height - BOTTOM + 12) for v in marks]
    body += [_text(x_of(v), height - 8, f"{100 * v:.0f} %", "middle") for v in marks]
    for index, row in enumerate(rows):
        top = TOP + ROW * index + 6
        body.append(_text(left - 8, top + BAR + 6, row.name, "end"))
        body += _bar(row.before, top, x_of, BEFORE) + _bar(row.after, top + BAR + 3, x_of, AFTER)
    says = "; ".join(f"{r.name}: {before} {r.before.mean:.1%}, {after} {r.after.mean:.1%}" for r in rows)
    return _legend([before, after], (BEFORE, AFTER)) + _svg(body, says, height)


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) from at or below `low` to at or above `high`."""
    span = high - low or abs(high) or 1.0
    power = 10.0 ** math.floor(math.log10(span / about))
    step = next(m * power for m in (1, 2, 5, 10) if span / (m * power) <= about)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [i * step for i in range(first, max(last, first + 1) + 1)]


def _finite(curve: Curve) -> Curve:
    kept = [(s, v) for s, v in zip(curve.steps, curve.values, strict=True) if math.isfinite(v)]
    return Curve(curve.name, [s for s, _ in kept], [v for _, v in kept])


def _running_mean(values: Sequence[float]) -> list[float]:
    """Mean over a centred window of a twentieth of the line, shorter at its ends."""
    reach = len(values) // 40
    windows = [values[max(0, i - reach) : i + reach + 1] for i in range(len(values))]
    return [sum(window) / len(window) for window in windows]


def _axis(low: float, high: float, start: float, end: float) -> Axis:
    return lambda value: start + (value - low) / (high - low) * (end - start)


def _line(curve: Curve, x_of: Axis, y_of: Axis, colour: str) -> list[str]:
    def path(values: Sequence[float], style: str) -> str:
        points = " ".join(f"{x_of(s):.1f},{y_of(v):.1f}" for s, v in zip(curve.steps, values, strict=True))
        return f'<polyline points="{points}" fill="none" stroke="{colour}" {style}/>'

    if len(curve.values) <= MANY:
        return [path(curve.values, 'stroke-width="2"')]
    faint = path(curve.values, 'stroke-width="1" opacity="0.25"')
    return [faint, path(_running_mean(curve.values), 'stroke-width="2"')]


def _bar(value: Estimate, top: float, x_of: Axis, colour: str) -> list[str]:
    middle, width = top + BAR / 2, max(x_of(value.mean) - x_of(0), 1)
    parts = [f'<rect x="{x_of(0):.1f}" y="{top}" width="{width:.1f}" height="{BAR}" fill="{colour}" rx="2"/>']
    end = x_of(value.mean)
    if not math.isnan(value.low):
        low, end = x_of(value.low), max(x_of(value.high), end)
        whisker = f"M{low:.1f} {middle}H{x_of(value.high):.1f}m0 -4v8M{low:.1f} {middle - 4}v8"
        parts.append(f'<path d="{whisker}" fill="none" stroke="#202124" stroke-width="1.5"/>')
    return [*parts, _text(end + 6, middle + 4, f"{100 * value.mean:.1f} %", "start")]


def _grid_line(x_1: float, y_1: float, x_2: float, y_2: float) -> str:
    return f'<line x1="{x_1:.1f}" y1="{y_1:.1f}" x2="{x_2:.1f}" y2="{y_2:.1f}" stroke="#dadce0"/>'


def _text(x: float, y: float, words: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escaped(words)}</text>'


def _legend(names: Sequence[str], colours: Sequence[str]) -> str:
    keys = zip(names, colours, strict=False)
    items = "".join(f'<span><i style="background:{c}"></i>{escaped(name)}</span>' for name, c in keys)
    return f'<p class="legend">{items}</p>'


def _svg(body: Sequence[str], label: str, height: float) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height:.0f}" role="img" aria-label="{escaped(label)}">'
    return "\n".join([head, *body, "</svg>"])
