"""The demo's page, and the image of its top."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from rewards.toy.captions import parse
from rewards.toy.describe import describe
from rewards.toy.vision import read_things
from t2ialign.data.images import open_rgb
from t2ialign.evaluation.manifest_scores import Score
from t2ialign.io.inside import inside
from t2ialign.tasks.demo import measuring, rounds
from t2ialign.tasks.demo.measuring import ALIGNED, BASE, MODELS, Measured
from t2ialign.tasks.demo.settings import Settings
from t2ialign.web import poster, report
from t2ialign.web.charts import Bar, Chart, Curve, curves

REPORT, POSTER = "report.html", "demo.png"
SPACE = "\N{NO-BREAK SPACE}"
SHOWN = 12
"""The number of pairs of images on the page."""
TITLES: dict[str, dict[str, str]] = {
    "Implicit accuracy": {"heldout/implicit_acc": "held-out pairs", "implicit_acc": "training pairs"},
    "Loss": {"loss": "loss"},
    "Squared error against the base model": {"err_win_minus_ref": "winners", "err_lose_minus_ref": "losers"},
}
"""Charts of the training, and what each shows."""


def write(output: Path, seed: int, settings: Settings, measured: Measured, result: Mapping[str, Any]) -> None:
    """Write both into the demo's folder; `result` is what demo.json will hold."""
    page = build(output, seed, settings, measured, result)
    report.write(page, output / REPORT)
    poster.write(page, output / POSTER)


def build(
    output: Path, seed: int, settings: Settings, measured: Measured, result: Mapping[str, Any]
) -> report.Report:
    """What the page shows: counts, images drawn at random, accuracy over guidance, then all the rest."""
    columns = measured.columns()
    base, aligned, difference = (columns[name] for name in (BASE, ALIGNED, "difference"))
    rows, shown = rounds.metrics(output, settings), comparisons(output, seed, measured)
    return report.Report(
        title="t2ialign demo: a toy text-to-image model, aligned",
        summary=in_words(settings, result),
        outcomes=result["outcomes"],
        headlines=[report.Headline("Oracle accuracy", base["all"], aligned["all"], difference["all"])],
        comparisons=shown,
        chosen=f"These {len(shown)} of all {len(measured.heldout[BASE])} pairs were drawn at random.",
        curve=curve(measured.over_guidance),
        categories=[Bar(name, base[name], aligned[name]) for name in base if name != "all"],
        charts=[Chart(title, curves(rows, names)) for title, names in TITLES.items()],
        settings={**vars(settings), **settings.training, "training": "train dpo", "pairs": result["pairs"]},
    )


def in_words(settings: Settings, result: Mapping[str, Any]) -> str:
    """What was done and what came of it, in plain words."""
    often = f"{settings.rounds} rounds" if settings.rounds > 1 else "one round"
    base, aligned = (f"{100 * result[model]['accuracy']:.1f}{SPACE}%" for model in MODELS)
    scales = (f"{result['guidance_scale'][model]:g}" for model in MODELS)
    return (
        f"In {often} the model drew {result['prompts']} captions {settings.images_per_prompt} times each, an "
        "exact judge passed or failed each image, and Diffusion-DPO with temporal discounting learned from "
        f"the pairs. Of captions that it had never trained on, {base} were drawn right before and {aligned} "
        f"after, each model at its own best guidance scale ({next(scales)} and {next(scales)})."
    )


def curve(over_guidance: Mapping[str, Mapping[float, Sequence[Score]]]) -> Chart:
    """Accuracy over the guidance scale for both models, in per cent."""
    drawn = []
    for model in reversed(MODELS):  # the first curve has the colour of what is after
        estimates = {scale: measuring.accuracy(rows) for scale, rows in over_guidance[model].items()}
        values = list(estimates.values())
        means, lows, highs = (
            [100 * getattr(value, part) for value in values] for part in ("mean", "low", "high")
        )
        drawn.append(Curve(model, list(estimates), means, lows, highs))
    count = len(next(iter(over_guidance[BASE].values())))
    note = f"{count} held-out images of each model at each scale; shaded: 95{SPACE}% intervals, by prompt."
    return Chart("Accuracy over guidance, per cent", drawn, note, across="guidance scale")


def comparisons(output: Path, seed: int, measured: Measured) -> list[report.Comparison]:
    """Pairs drawn at random from the held-out images, with what the oracle reads in each."""
    pairs = list(zip(*(measured.heldout[model] for model in MODELS), strict=True))
    drawn = random.Random(seed).sample(pairs, min(SHOWN, len(pairs)))
    return [_comparison(output, before, after) for before, after in drawn]


def _comparison(output: Path, before: Score, after: Score) -> report.Comparison:
    first, second = (
        open_rgb(inside(output / model, row["file"])) for model, row in ((BASE, before), (ALIGNED, after))
    )
    return report.Comparison(
        before["prompt"],
        before["seed"],
        first,
        second,
        before["score"] == 1,
        after["score"] == 1,
        _read(first, before["prompt"]),
        _read(second, before["prompt"]),
    )


def _read(image: Image.Image, prompt: str) -> str:
    """What the oracle reads in an image, in words."""
    return describe(read_things(np.asarray(image, np.float64) / 255), parse(prompt))
