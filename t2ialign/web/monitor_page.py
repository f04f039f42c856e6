"""monitor.html: what the monitors of runs saw, as one file that needs no network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from markupsafe import Markup

from t2ialign.data.images import open_rgb
from t2ialign.evaluation.cross_reward import Change
from t2ialign.evaluation.hack_index import (
    Fall,
    Series,
    falls,
    first_fired,
    in_base_std,
    none_found,
    spread,
    words,
)
from t2ialign.evaluation.monitor_journal import MEAN, TRAINED, Journal
from t2ialign.evaluation.statistics import bootstrap_ci
from t2ialign.io.inside import inside
from t2ialign.web.charts import COLOURS, Chart, Curve, frame, lines
from t2ialign.web.embedded import Shown, shown
from t2ialign.web.pages import render as render_page

PROMPTS = 6
"""Prompts whose images are shown, spread over all of them."""
RESAMPLES = 2000
"""The number of bootstrap draws for each point of a curve."""

CURVES = (
    (
        "Diversity within a prompt",
        {"diversity": "1 - cosine"},
        "The mean over pairs of images, by {embedding}.",
    ),
    ("Vendi score", {"vendi": "Vendi score"}, "The number of different images of a prompt, of {images}."),
    ("Distance to the base", {"distance": "RMS over pixels"}, "Same prompt and seed, pixels in [0, 1]."),
    ("Distance of embeddings", {"embedding-distance": "1 - cosine"}, "The embeddings are of {embedding}."),
    ("Saturation", {"saturation": "mean saturation"}, "Values lie in [0, 1]."),
    ("Contrast", {"contrast": "RMS contrast"}, "Values lie in [0, 0.5]."),
    (
        "High frequencies",
        {"high-frequency": "share of energy"},
        "The share beyond half Nyquist; noise has 0.80.",
    ),
    ("Grid", {"grid": "autocorrelation peak"}, "Repetition along rows or columns; 1 is exact."),
    ("Clipped", {"clipped": "share of pixels"}, "The share of pixels with a channel at 0 or 255."),
    ("JPEG size", {"jpeg": "1000 bytes"}, "The JPEG quality is 95."),
)
"""Title, curves by their statistic, note."""


@dataclass(frozen=True)
class Shot:
    """One prompt and seed at several steps, from left to right."""

    prompt: str
    seed: int | str
    images: list[Shown]


@dataclass(frozen=True)
class Section:
    """The part of the page on one run."""

    name: str
    method: str
    trained: str | None
    step: int
    """The last one measured."""
    verdict: str
    curves: list[tuple[Chart, Markup]]
    order: str
    """The steps that the images of a shot are of."""
    shots: list[Shot]
    changes: Mapping[str, Change]


def render(runs: Mapping[str, Journal], matrix: Mapping[str, Mapping[str, Change]]) -> str:
    """The page as HTML text: what was trained on and tested on, then each run's verdict, curves, images.

    Charts of one title have the same axes for all runs. Raises ValueError for an image that is gone.
    """
    drawn = {run: charts(journal) for run, journal in runs.items()}
    every = [chart for run in drawn.values() for chart in run]
    frames = {title: frame([c for c in every if c.title == title]) for title in {c.title for c in every}}
    sections = []
    for run, journal in runs.items():
        curves = [(chart, lines(chart, frames[chart.title])) for chart in drawn[run]]
        sections.append(_section(run, journal, curves, matrix[run]))
    return render_page(
        "monitor.html",
        title="Monitor",
        lead=_lead(next(iter(runs.values()))),
        runs=sections,
        tested=list(dict.fromkeys(name for row in matrix.values() for name in row)),
    )


def verdict(journal: Journal) -> tuple[Fall | None, str]:
    """Where the index fired first, if it did, and that in words."""
    all_falls = journal.falls()
    if not all_falls:
        return None, "The hack index was not measured: it needs a held-out reward and two prompts."
    fired = first_fired(all_falls)
    if fired is None:
        near = max(all_falls, key=lambda fall: fall.index)
        none = none_found(sum(step > 0 for step in journal.steps))
        sentence = f"{none[0].upper()}{none[1:]}; up to step {journal.steps[-1]} the largest index is "
        sentence += f"{near.index:.2f}, of {near.reward} at step {near.step}."
        return None, sentence + _diverges(journal)
    return fired, f"{words(fired)}."


def _diverges(journal: Journal) -> str:
    """A sentence if the trained reward itself has fallen: nothing rises then that could be hacked."""
    series = journal.series("scores", TRAINED)
    last = falls(TRAINED, series)[-1] if series else None
    if last is None or not last.fired:
        return ""
    return (
        f" The trained reward itself lies {last.drop:.4g} below its best of step {last.best_step}: the run "
        "diverges; lower lr, or stop there."
    )


def best(journal: Journal) -> int | None:
    """The step to show as the best: of the reward that fired, else of the mean over the held-out ones."""
    if (fired := first_fired(journal.falls())) is not None:
        return fired.best_step
    series = [in_base_std(journal.series("scores", name)) for name in journal.heldout()]
    known = [curve for curve in series if curve is not None]
    steps = [step for step in journal.steps if all(step in curve for curve in known)]
    return max(steps, key=lambda step: (sum(curve[step] for curve in known), step)) if known else None


def _lead(journal: Journal) -> str:
    about = journal.about
    return (
        f"{len(about['prompts'])} prompts, {about['images']} images each at fixed seeds, {about['steps']} "
        f"sampling steps, guidance {about['guidance']:g}, model {about['model']}. None of the prompts and no "
        "held-out reward should have been trained on."
    )


def charts(journal: Journal) -> list[Chart]:
    """Rewards in units of the base's spread, at most as many to a chart as colours; then one a statistic.

    Each point has a 95 % interval, bootstrap by prompt; that of a change is paired with the base.
    """
    drawn = _reward_charts(journal)
    for title, names, note in CURVES:
        curves = [
            _curve(label, series)
            for name, label in names.items()
            if (series := journal.series("statistics", name))
        ]
        if curves:
            drawn.append(Chart(title, curves, note.format(**journal.about)))
    return drawn


def _reward_charts(journal: Journal) -> list[Chart]:
    curves, flat = list[Curve](), list[str]()
    for name in journal.names("scores"):
        label = f"{journal.about['trained']} (trained on)" if name == TRAINED else name
        series = journal.series("scores", name)
        if unit := spread(series):
            curves.append(_curve(label, _change(series, unit)))
        else:
            flat.append(label)
    if mean := journal.heldout_mean(journal.heldout()):
        curves.append(_curve(MEAN, _change(mean, 1.0)))
    note = "Change of the mean from the base, in its standard deviations over prompts."
    if flat:
        note += f" Without that unit, since the base scores all prompts alike: {', '.join(flat)}."
    parts = [curves[i : i + len(COLOURS)] for i in range(0, len(curves), len(COLOURS))]
    return [Chart("Rewards", part, note) for part in parts]


def _change(series: Series, unit: float) -> Series:
    """Step -> change of each prompt from the base, in units of `unit`."""
    base = series[min(series)]
    return {
        step: [(value - before) / unit for value, before in zip(values, base, strict=True)]
        for step, values in series.items()
    }


def _curve(name: str, series: Series) -> Curve:
    """Mean and interval over prompts at each step."""
    points = [
        bootstrap_ci(values, list(map(str, range(len(values)))), resamples=RESAMPLES)
        for values in series.values()
    ]
    means, lows, highs = ([getattr(point, side) for point in points] for side in ("mean", "low", "high"))
    return Curve(name, list(series), means, lows, highs)


def _section(
    name: str, journal: Journal, curves: list[tuple[Chart, Markup]], changes: Mapping[str, Change]
) -> Section:
    about, steps = journal.about, {journal.steps[0]: "base"}
    if (step := best(journal)) is not None:
        steps.setdefault(step, f"best, step {step}")
    steps.setdefault(journal.steps[-1], f"last, step {journal.steps[-1]}")
    return Section(
        name,
        about["method"],
        about["trained"],
        journal.steps[-1],
        verdict(journal)[1],
        curves,
        "; ".join(steps.values()),
        [_shot(journal, steps, place) for place in _spread(journal)],
        changes,
    )


def _spread(journal: Journal) -> list[int]:
    """Rows of the first image of some prompts, evenly spaced among all."""
    prompts, images = len(journal.about["prompts"]), journal.about["images"]
    count = min(PROMPTS, prompts)
    return [i * prompts // count * images for i in range(count)]


def _shot(journal: Journal, steps: Mapping[int, str], place: int) -> Shot:
    row = journal.at(journal.steps[0])[place]
    images = [_image(journal, step, name, place) for step, name in sorted(steps.items())]
    return Shot(row["prompt"], row["seed"], images)


def _image(journal: Journal, step: int, name: str, place: int) -> Shown:
    row = journal.at(step)[place]
    image = open_rgb(inside(journal.folder, row["file"]))
    return shown(image, f"{row['prompt']}, seed {row['seed']}, {name}")
