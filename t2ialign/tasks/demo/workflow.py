"""The whole demo, stage by stage: rounds of alignment, the measurement, the page.

Every stage leaves its files, so a run that was cut off, or is repeated, goes on from there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from t2ialign.evaluation.comparison import Summary
from t2ialign.io import atomic, jsonl
from t2ialign.tasks.demo import measuring, page, rounds
from t2ialign.tasks.demo.measuring import MODELS, Measured
from t2ialign.tasks.demo.settings import DEFAULT, Settings, claim
from t2ialign.web.report import count_outcomes

RESULT, SECONDS = "demo.json", "seconds.jsonl"


def make(output: Path, seed: int, *, settings: Settings = DEFAULT) -> dict[str, Any]:
    """Do the stages of the demo that are missing in `output` -> the content of its demo.json.

    Raises ValueError for a folder that holds something else, or a demo of other settings.
    """
    claim(output, seed, settings)
    if not (output / RESULT).exists():
        with _timed(output):
            rounds.run(output, seed, settings)
        with _timed(output):
            measured = measuring.measure(output, seed, settings)
        result = summary(output, settings, measured)
        page.write(output, seed, settings, measured, result)
        atomic.write_json(output / RESULT, result)
    return atomic.read_json(output / RESULT)


def summary(output: Path, settings: Settings, measured: Measured) -> dict[str, Any]:
    """The content of demo.json."""
    verdicts = ([row["score"] == 1 for row in measured.heldout[model]] for model in MODELS)
    new = measured.columns(new_combinations=True)
    return {
        **_accuracies(measured.columns()),
        "guidance_scale": measured.best,
        "outcomes": count_outcomes(*verdicts),
        "new_combinations": {name: column["all"].to_json() for name, column in new.items()},
        "over_guidance": [_at(measured, scale) for scale in settings.guidance_scales],
        "prompts": settings.rounds * settings.prompts_per_round,
        "pairs": rounds.count_pairs(output, settings),
        "steps": settings.rounds * settings.training["max_steps"],
        "seconds": round(sum(row["seconds"] for row in jsonl.read(output / SECONDS))),
    }


def _accuracies(columns: dict[str, Summary]) -> dict[str, Any]:
    return {
        name: {
            "accuracy": column["all"].mean,
            "ci95": [column["all"].low, column["all"].high],
            "by_category": {key: value.mean for key, value in column.items() if key != "all"},
        }
        for name, column in columns.items()
    }


def _at(measured: Measured, scale: float) -> dict[str, Any]:
    estimates = measuring.at(measured, scale)
    return {"guidance_scale": scale, **{name: value.to_json() for name, value in estimates.items()}}


@contextmanager
def _timed(output: Path) -> Iterator[None]:
    """Note how long a stage took, cut off or not, so that a demo done in several runs knows its time."""
    started = time.monotonic()
    try:
        yield
    finally:
        jsonl.append(output / SECONDS, [{"seconds": time.monotonic() - started}])
