"""The claims of the demo: rounds of DPO raise the accuracy of the toy models, and guidance keeps the gain."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.estimates import bar_figure, judged
from t2ialign.evaluation.comparison import Summary
from t2ialign.evaluation.statistics import Estimate
from t2ialign.tasks.demo import measuring, page, workflow
from t2ialign.tasks.demo.measuring import ALIGNED, BASE, MODELS, Measured
from t2ialign.tasks.demo.settings import BY_MODEL, DEFAULT, Settings
from t2ialign.web.charts import lines

GAIN, FLOW_GAIN = 0.20, 0.10
"""The gains in points of oracle accuracy that the demo claims, and its one round on the flow model."""
LOW, HIGH = 2, 6
"""From the first to the second guidance scale the aligned model is not below the base model."""


class Demo(Claim):
    """`t2ialign demo` for each seed; one bootstrap by prompt over every image of every seed."""

    text = (
        f"Rounds of DPO raise held-out oracle accuracy by >= {100 * GAIN:.0f} points, each model at its own "
        "best guidance, 95 % intervals apart"
    )
    over_guidance = (
        f"At no guidance from {LOW} to {HIGH} is the aligned model below the base model: nowhere does the "
        "95 % interval of the difference lie below 0"
    )
    settings: Settings = DEFAULT
    gain = GAIN

    def measure(self, folder: Path, seed: int) -> None:
        """Run the demo, from where it was cut off."""
        workflow.make(folder, seed, settings=self.settings)

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """Two rows: each model at its own best guidance, and both over guidance."""
        measured = self.pooled(folders)
        return [self.at_best(measured, folders), self._over_guidance(measured)]

    def by_seed(self, folders: Sequence[Path]) -> list[dict[str, Any]]:
        """Accuracies, best guidance and seconds of each seed."""
        results = [json.loads((folder / workflow.RESULT).read_text(encoding="utf-8")) for folder in folders]
        return [
            {name: result[name]["accuracy"] for name in MODELS}
            | {key: result[key] for key in ("guidance_scale", "seconds")}
            for result in results
        ]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Accuracy by category at each model's best guidance, and accuracy over guidance."""
        measured = self.pooled(folders)
        base, aligned = (measured.columns()[name] for name in MODELS)
        pairs = {name: (base[name], aligned[name]) for name in base}
        chart = page.curve(measured.over_guidance)
        bars = bar_figure("Accuracy at each model's best guidance", pairs, before=BASE, after=ALIGNED)
        return [bars, Figure(chart.title, str(lines(chart)), chart.note)]

    def pooled(self, folders: Sequence[Path]) -> Measured:
        """The verdicts of all seeds."""
        return measuring.pooled([measuring.read(folder, self.settings) for folder in folders])

    def at_best(self, measured: Measured, folders: Sequence[Path]) -> Row:
        """The row of each model at its own best guidance; it holds if the gain is there, intervals apart."""
        columns, new = measured.columns(), measured.columns(new_combinations=True)
        base, aligned, difference = (columns[name] for name in (BASE, ALIGNED, "difference"))
        by_category = {name: {BASE: base[name].mean, ALIGNED: aligned[name].mean} for name in _names(base)}
        values = {
            **{name: column["all"] for name, column in columns.items()},
            "by_category": by_category,
            "new_combinations": {name: column["all"] for name, column in new.items()},
            "by_seed": self.by_seed(folders),
        }
        holds = difference["all"].mean >= self.gain and aligned["all"].low > base["all"].high
        return judged(self.text, values, difference["all"], holds)

    def _over_guidance(self, measured: Measured) -> Row:
        """The interval that decides is the one whose upper end is the lowest."""
        at = {scale: measuring.at(measured, scale) for scale in self.settings.guidance_scales}
        worst = min((at[scale]["difference"] for scale in at if LOW <= scale <= HIGH), key=_upper_end)
        values = [{"guidance": scale, **estimates} for scale, estimates in at.items()]
        return judged(self.over_guidance, {"over_guidance": values}, worst, _upper_end(worst) >= 0)


class FlowDemo(Demo):
    """`t2ialign demo --model toy-flow`, which is one round."""

    text = (
        "One round of DPO raises held-out oracle accuracy of the flow model by "
        f">= {100 * FLOW_GAIN:.0f} points, each model at its own best guidance, 95 % intervals apart"
    )
    settings: Settings = BY_MODEL["toy-flow"]
    gain = FLOW_GAIN

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """One row: each model at its own best guidance."""
        return [self.at_best(self.pooled(folders), folders)]


def _names(summary: Summary) -> list[str]:
    return [name for name in summary if name != "all"]


def _upper_end(estimate: Estimate) -> float:
    return estimate.high


CLAIMS: tuple[Claim, ...] = (Demo(), FlowDemo())
