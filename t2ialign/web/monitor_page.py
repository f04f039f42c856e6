"""monitor.html: what the monitors of runs saw, as one file that needs no network and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from t2ialign.data.images import open_rgb
from t2ialign.evaluation.cross_reward import Change
from t2ialign.evaluation.hack_index import Fall, falls, first_fired, in_base_std, none_found, words
from t2ialign.evaluation.monitor_journal import MEAN, TRAINED, Journal
from t2ialign.evaluation.statistics import form
from t2ialign.io.inside import inside
from t2ialign.web.charts import COLOURS, Chart, Curve, lines
from t2ialign.web.markup import escaped
from t2ialign.web.report import PAGE, PIXEL_ART, STYLE, data_uri

PROMPTS = 6
"""Prompts whose pictures are shown, spread over all of them."""

CURVES = (
    ("Diversity within a prompt", {"diversity": "1 - cosine"}, "Mean over pairs of images, by {embedding}."),
    ("Vendi score", {"vendi": "Vendi score"}, "How many different images a prompt has, of {images}."),
    ("Distance to the base", {"distance": "RMS over pixels"}, "Of the same prompt and seed, in [0, 1]."),
    ("Distance of embeddings", {"embedding-distance": "1 - cosine"}, "To the base, by {embedding}."),
    ("Saturation", {"saturation": "mean saturation"}, "In [0, 1]."),
    ("Contrast", {"contrast": "RMS contrast"}, "In [0, 0.5]."),
    ("High frequencies", {"high-frequency": "share of energy"}, "Beyond half Nyquist; noise has 0.80."),
    ("Grid", {"grid": "autocorrelation peak"}, "Patterns that repeat along rows or columns; 1 is exactly."),
    ("Clipped", {"clipped": "share of pixels"}, "With a channel at 0 or 255."),
    ("JPEG size", {"jpeg": "1000 bytes"}, "At quality 95."),
)
"""Title, curves by their statistic, note."""


def render(runs: Mapping[str, Journal], matrix: Mapping[str, Mapping[str, Change]]) -> str:
    """The page as HTML text: what was trained on and tested on, then each run's verdict, curves, pictures.

    Raises ValueError for a picture that is gone.
    """
    sections = [("Trained on, tested on", _matrix(runs, matrix))]
    sections += [(run, _run(journal)) for run, journal in runs.items()]
    body = "".join(f"<section><h2>{escaped(name)}</h2>{inside}</section>" for name, inside in sections)
    head = f"<header><h1>Monitor</h1><p>{escaped(_lead(next(iter(runs.values()))))}</p></header>"
    return PAGE.format(title="Monitor", style=STYLE + MORE_STYLE, body=head + body)


def verdict(journal: Journal) -> tuple[Fall | None, str]:
    """Where the index fired first, if it did, and that in words."""
    found = journal.falls()
    if not found:
        return None, "The hack index was not measured: it needs a held-out reward and two prompts."
    fired = first_fired(found)
    if fired is None:
        near = max(found, key=lambda fall: fall.index)
        none = none_found(sum(step > 0 for step in journal.steps))
        said = f"{none[0].upper()}{none[1:]}; up to step {journal.steps[-1]} the largest index is "
        said += f"{near.index:.2f}, of {near.reward} at step {near.step}."
        return None, said + _diverges(journal)
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


def _run(journal: Journal) -> str:
    about, (_, said) = journal.about, verdict(journal)
    trained = about["trained"] or "no reward of its own"
    head = f"<p>Method {escaped(about['method'])}, trained on {escaped(trained)}. <b>{escaped(said)}</b></p>"
    shown = (
        f"<div><h3>{escaped(chart.title)}</h3><p><small>{escaped(chart.note)}</small></p>{lines(chart)}</div>"
        for chart in charts(journal)
    )
    return f'{head}<div class="charts">{"".join(shown)}</div>{_pictures(journal)}'


def charts(journal: Journal) -> list[Chart]:
    """Rewards in units of the base's spread, at most as many to a chart as colours; then one a statistic."""
    found = _reward_charts(journal)
    for title, names, note in CURVES:
        curves = [
            Curve(label, list(series), [sum(v) / len(v) for v in series.values()])
            for name, label in names.items()
            if (series := journal.series("statistics", name))
        ]
        if curves:
            found.append(Chart(title, curves, note.format(**journal.about)))
    return found


def _reward_charts(journal: Journal) -> list[Chart]:
    curves, flat = list[Curve](), list[str]()
    for name in journal.names("scores"):
        label = f"{journal.about['trained']} (trained on)" if name == TRAINED else name
        if (change := in_base_std(journal.series("scores", name))) is None:
            flat.append(label)
        else:
            curves.append(Curve(label, list(change), list(change.values())))
    if mean := journal.heldout_mean(journal.heldout()):
        curves.append(Curve(MEAN, list(mean), [sum(values) / len(values) for values in mean.values()]))
    note = "Change of the mean from the base, in its standard deviations over prompts."
    if flat:
        note += f" Without that unit, since the base scores all prompts alike: {', '.join(flat)}."
    parts = [curves[i : i + len(COLOURS)] for i in range(0, len(curves), len(COLOURS))]
    return [Chart("Rewards", part, note) for part in parts]


def _pictures(journal: Journal) -> str:
    steps = {journal.steps[0]: "base"}
    if (step := best(journal)) is not None:
        steps.setdefault(step, f"best, step {step}")
    steps.setdefault(journal.steps[-1], f"last, step {journal.steps[-1]}")
    cards = "".join(_card(journal, steps, place) for place in _spread(journal))
    order = escaped("; ".join(steps.values()))
    return f'<p>The same prompt and seed, from left to right: {order}.</p><div class="grid">{cards}</div>'


def _spread(journal: Journal) -> list[int]:
    """Rows of the first image of some prompts, evenly spaced among all."""
    prompts, images = len(journal.about["prompts"]), journal.about["images"]
    count = min(PROMPTS, prompts)
    return [i * prompts // count * images for i in range(count)]


def _card(journal: Journal, steps: Mapping[int, str], place: int) -> str:
    row = journal.at(journal.steps[0])[place]
    cells = "".join(_picture(journal, step, name, place) for step, name in sorted(steps.items()))
    return (
        f'<figure><div class="row" style="grid-template-columns: repeat({len(steps)}, 1fr)">{cells}</div>'
        f"<figcaption>{escaped(row['prompt'])} <small>seed {escaped(row['seed'])}</small></figcaption>"
        "</figure>"
    )


def _picture(journal: Journal, step: int, name: str, place: int) -> str:
    row = journal.at(step)[place]
    image = open_rgb(inside(journal.folder, row["file"]))
    alt = escaped(f"{row['prompt']}, seed {row['seed']}, {name}")
    style = "pixel" if max(image.size) <= PIXEL_ART else "smooth"
    return f'<img class="{style}" src="{data_uri(image)}" alt="{alt}">'


def _matrix(runs: Mapping[str, Journal], matrix: Mapping[str, Mapping[str, Change]]) -> str:
    tested = list(dict.fromkeys(name for row in matrix.values() for name in row))
    head = "".join(f"<th>{escaped(name)}</th>" for name in tested)
    rows = "".join(_matrix_row(run, runs[run], row, tested) for run, row in matrix.items())
    return (
        "<p>Change of the mean from the base to the last step, in standard deviations of the base over "
        "prompts, with its 95 % interval, bootstrap by prompt, over images of the same prompt and seed. "
        "Grey: the reward that the run was trained on: training worked, whether or not the images are "
        "better.</p>"
        f'<table class="matrix"><tr><th>trained on</th>{head}</tr>{rows}</table>'
    )


def _matrix_row(run: str, journal: Journal, row: Mapping[str, Change], tested: Sequence[str]) -> str:
    about = journal.about
    trained = f"{about['trained'] or 'no reward'} ({about['method']}, step {journal.steps[-1]})"
    cells = "".join(_cell(row[name]) if name in row else "<td></td>" for name in tested)
    return f"<tr><th>{escaped(trained)}<div><small>{escaped(run)}</small></div></th>{cells}</tr>"


def _cell(change: Change) -> str:
    text = form(change.scaled) if change.scaled else f"{form(change.raw)} in its own units"
    return f'<td class="own">{escaped(text)} (trained on)</td>' if change.own else f"<td>{escaped(text)}</td>"


MORE_STYLE = """
.row { display: grid; gap: 6px; }
.row img { display: block; width: 100%; height: auto; border: 1px solid var(--line); border-radius: 6px; }
.matrix .own { color: var(--quiet); background: #f1f3f4; }
.charts { margin-bottom: 20px; }
"""
