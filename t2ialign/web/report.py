"""report.html: what an alignment did, as one file that needs no network and no script.

Everything comes in as plain data, so that any verb can write one: build a `Report`, call `write`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from t2ialign.evaluation.statistics import Estimate, form
from t2ialign.io import atomic
from t2ialign.web.charts import AFTER, BEFORE, Bar, Chart, bars, lines
from t2ialign.web.markup import escaped

LARGEST = 320
"""Longest side of an embedded picture in pixels; larger ones are shrunk and stored as JPEG."""
PIXEL_ART = 64
"""Pictures up to this many pixels are enlarged without smoothing."""


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


@dataclass(frozen=True)
class Comparison:
    """The same prompt and seed before and after; `passed` is None where there is no yes or no."""

    prompt: str
    seed: int
    before: Image.Image
    after: Image.Image
    before_passed: bool | None = None
    after_passed: bool | None = None


@dataclass(frozen=True)
class Report:
    """All that a report shows; an empty section is left out. `summary` is one paragraph of plain text."""

    title: str
    summary: str
    headlines: Sequence[Headline]
    comparisons: Sequence[Comparison] = ()
    categories: Sequence[Bar] = ()
    charts: Sequence[Chart] = ()
    settings: Mapping[str, object] = field(default_factory=dict)
    before: str = "base"
    after: str = "aligned"


def write(report: Report, file: Path) -> None:
    """Write the page at once: a reader never sees half of it."""
    atomic.write_text(file, render(report))


def render(report: Report) -> str:
    """The page as HTML text: headline numbers, pictures, categories, training curves, settings."""
    sections = [
        ("Result", _headlines(report)),
        ("Before and after", _comparisons(report) if report.comparisons else ""),
        ("Accuracy by category", _categories(report) if report.categories else ""),
        ("Training", _training(report.charts) if report.charts else ""),
        ("Settings", _settings(report.settings) if report.settings else ""),
    ]
    body = "".join(f"<section><h2>{name}</h2>{inside}</section>" for name, inside in sections if inside)
    head = f"<header><h1>{escaped(report.title)}</h1><p>{escaped(report.summary)}</p></header>"
    return PAGE.format(title=escaped(report.title), style=STYLE, body=head + body)


def data_uri(image: Image.Image) -> str:
    """The picture as a data: URI: PNG as it is up to `LARGEST` pixels, else shrunk and JPEG."""
    shown, kind, stream = image.convert("RGB"), "png", io.BytesIO()
    if max(shown.size) > LARGEST:
        shown.thumbnail((LARGEST, LARGEST))
        kind = "jpeg"
    shown.save(stream, format=kind, **({"quality": 88} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"


def _headlines(report: Report) -> str:
    return '<div class="cards">' + "".join(_card(h, report) for h in report.headlines) + "</div>"


def _card(headline: Headline, report: Report) -> str:
    rows = ((report.before, headline.before, BEFORE), (report.after, headline.after, AFTER))
    figures = "".join(
        f'<div class="figure"><span>{escaped(name)}</span>'
        f'<b style="color:{colour}">{_mean(value, headline)}</b>'
        f"<small>{_interval(value, headline)}</small></div>"
        for name, value, colour in rows
    )
    change = headline.difference
    points = "points" if headline.unit == "%" else escaped(headline.unit)
    return (
        f'<article class="card"><h3>{escaped(headline.name)}</h3><div class="figures">{figures}</div>'
        f"<p>Paired difference <b>{change.mean * headline.scale:+.{_digits(headline)}f} {points}</b> "
        f"{_interval(change, headline)}; {change.count} images of {change.prompts} prompts.</p></article>"
    )


def _comparisons(report: Report) -> str:
    cards = "".join(_comparison(item, report) for item in report.comparisons)
    return (
        f"<p>Each pair has the same prompt and the same seed: {escaped(report.before)} on the left, "
        f'{escaped(report.after)} on the right.</p><div class="grid">{cards}</div>'
    )


def _comparison(item: Comparison, report: Report) -> str:
    sides = (
        (report.before, item.before, item.before_passed),
        (report.after, item.after, item.after_passed),
    )
    pictures = "".join(_picture(name, image, passed, item) for name, image, passed in sides)
    return (
        f'<figure><div class="pair">{pictures}</div>'
        f"<figcaption>{escaped(item.prompt)} <small>seed {escaped(item.seed)}</small></figcaption></figure>"
    )


def _picture(name: str, image: Image.Image, passed: bool | None, item: Comparison) -> str:
    alt = escaped(f"{item.prompt}, seed {item.seed}, drawn by the {name} model")
    style = "pixel" if max(image.size) <= PIXEL_ART else "smooth"
    return (
        f'<div><img class="{style}" src="{data_uri(image)}" alt="{alt}">'
        f'<div class="verdict">{escaped(name)} {MARKS[passed]}</div></div>'
    )


def _categories(report: Report) -> str:
    chart = bars(report.categories, before=report.before, after=report.after)
    return (
        f'<div class="bars">{chart}</div><p><small>Whiskers: 95 % interval, bootstrap by prompt.</small></p>'
    )


def _training(charts: Sequence[Chart]) -> str:
    shown = (
        f"<div><h3>{escaped(chart.title)}</h3><p><small>{escaped(chart.note)}</small></p>{lines(chart)}</div>"
        for chart in charts
    )
    return f'<div class="charts">{"".join(shown)}</div>'


def _settings(settings: Mapping[str, object]) -> str:
    rows = "".join(f"<tr><th>{escaped(k)}</th><td>{escaped(v)}</td></tr>" for k, v in settings.items())
    return f"<table>{rows}</table>"


def _mean(value: Estimate, headline: Headline) -> str:
    return f"{headline.scale * value.mean:.{_digits(headline)}f}&nbsp;{escaped(headline.unit)}"


def _interval(value: Estimate, headline: Headline) -> str:
    words = form(value, scale=headline.scale).partition(" ")[2]
    return f"95&nbsp;% CI {escaped(words)}" if words.startswith("[") else escaped(words)


def _digits(headline: Headline) -> int:
    return 1 if headline.scale >= 100 else 3


# A symbol, a shape and a word besides the colour: no verdict is told by colour alone.
MARKS = {
    None: "",
    True: '<span class="pass"><i aria-hidden="true">&#10003;</i> pass</span>',
    False: '<span class="fail"><i aria-hidden="true">&#10007;</i> fail</span>',
}

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><style>{style}</style></head><body><main>{body}</main></body></html>
"""

STYLE = """
:root { color-scheme: light; --line: #dadce0; --quiet: #5f6368; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #202124; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 24px 20px 64px; }
header { border-bottom: 1px solid var(--line); margin-bottom: 8px; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 8px 0; }
h2 { font-size: 1.25rem; margin: 36px 0 12px; }
h3 { font-size: 1rem; margin: 0 0 4px; }
p { margin: 6px 0 12px; max-width: 46rem; }
small, figcaption small { color: var(--quiet); font-size: .8rem; }
.cards { display: grid; gap: 16px; grid-template-columns: repeat(auto-fit, minmax(min(100%, 320px), 1fr)); }
.card { border: 1px solid var(--line); border-radius: 10px; padding: 16px 20px; }
.card p { margin: 12px 0 0; font-size: .92rem; }
.figures { display: flex; flex-wrap: wrap; gap: 8px 40px; }
.figure { display: flex; flex-direction: column; }
.figure b { font-size: 2rem; line-height: 1.2; font-variant-numeric: tabular-nums; }
.grid { display: grid; gap: 18px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 236px), 1fr)); }
figure { margin: 0; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 6px; }
.pair img { display: block; width: 100%; height: auto; border: 1px solid var(--line); border-radius: 6px; }
.pixel { image-rendering: pixelated; }
.verdict { display: flex; justify-content: space-between; font-size: .8rem; color: var(--quiet); }
.pass, .fail { font-weight: 600; }
.pass { color: #00695c; }
.fail { color: #9c2b00; }
.verdict i { display: inline-block; width: 18px; font: bold 12px/18px sans-serif; text-align: center; }
.pass i { background: #00695c; color: #fff; border-radius: 50%; }
.fail i { border-radius: 3px; box-shadow: inset 0 0 0 1.5px #9c2b00; }
figcaption { font-size: .92rem; margin-top: 2px; line-height: 1.35; overflow-wrap: anywhere; }
.charts { display: grid; gap: 24px 32px;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); }
.bars { max-width: 640px; }
.legend { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: .88rem; margin: 2px 0; }
.legend i { display: inline-block; width: 12px; height: 12px; border-radius: 2px; margin-right: 6px; }
svg { width: 100%; height: auto; display: block; }
svg text { font: 13px system-ui, sans-serif; fill: #3c4043; font-variant-numeric: tabular-nums; }
table { border-collapse: collapse; font-size: .92rem; }
th, td { text-align: left; vertical-align: top; padding: 4px 20px 4px 0; }
tr { border-bottom: 1px solid var(--line); }
th { font-weight: 500; color: var(--quiet); }
td { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
@media print { .card, figure, .charts > div, .bars { break-inside: avoid; } }
"""
