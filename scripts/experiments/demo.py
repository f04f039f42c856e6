"""The demo's claim: DPO on the toy model raises held-out oracle accuracy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rewards
from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.estimates import bar_figure, judged
from t2ialign.cli import demo
from t2ialign.evaluation.comparison import Summary, summarise
from t2ialign.io import jsonl
from t2ialign.toy.suite import GUIDANCE

GAIN = 0.10
"""The gain in points of oracle accuracy that the demo claims."""
AT_SUITE = "at_suite_guidance"
"""The same prompts and seeds at the guidance that suits the base model best."""


class Demo(Claim):
    """`t2ialign demo` for each seed; one bootstrap by prompt over every image of every seed."""

    text = f"DPO raises held-out oracle accuracy by >= {100 * GAIN:.0f} points, 95 % intervals apart"

    def measure(self, folder: Path, seed: int) -> None:
        """Run the demo, from where it was cut off, and measure its result at the suite's guidance too."""
        demo.make(folder, seed)
        demo.measure(folder, seed, into=folder / AT_SUITE, guidance_scale=GUIDANCE)

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """Two rows: at the demo's guidance, and the same LoRA at the suite's."""
        results = [json.loads((folder / demo.RESULT).read_text()) for folder in folders]
        by_seed = [
            {name: result[name]["accuracy"] for name in ("base", "aligned")} | {"seconds": result["seconds"]}
            for result in results
        ]
        at_demo, at_suite = self._by_guidance(folders)
        return [self._row(*at_demo, {"by_seed": by_seed}), self._row(*at_suite, {})]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Accuracy by category at both guidances."""
        charts = []
        for guidance_scale, runs in self._by_guidance(folders):
            columns = _columns(runs)
            pairs = {name: (base, columns["scores"][name]) for name, base in columns["baseline"].items()}
            title = f"Oracle accuracy at guidance {guidance_scale:g}"
            charts.append(bar_figure(title, pairs, before="base", after="aligned"))
        return charts

    def _by_guidance(self, folders: Sequence[Path]) -> list[tuple[float, list[Path]]]:
        at_suite = [folder / AT_SUITE for folder in folders]
        return [(demo.SAMPLER["guidance_scale"], list(folders)), (GUIDANCE, at_suite)]

    def _row(self, guidance_scale: float, folders: Sequence[Path], more: dict[str, Any]) -> Row:
        columns = _columns(folders)
        base, aligned, difference = (columns[name] for name in ("baseline", "scores", "difference"))
        categories = [name for name in aligned if name != "all"]
        by_category = {name: {"base": base[name].mean, "aligned": aligned[name].mean} for name in categories}
        measured = {
            **{"base": base["all"], "aligned": aligned["all"], "difference": difference["all"]},
            "by_category": by_category,
            "guidance": guidance_scale,
            **more,
        }
        holds = difference["all"].mean >= GAIN and aligned["all"].low > base["all"].high
        return judged(f"{self.text}, at guidance {guidance_scale:g}", measured, difference["all"], holds)


def _columns(folders: Sequence[Path]) -> dict[str, Summary]:
    """Scores, baseline and difference over the images of all seeds."""
    scores: dict[str, list[dict[str, Any]]] = {
        name: [row for folder in folders for row in jsonl.read(folder / name / demo.SCORES)]
        for name in ("base", "aligned")
    }
    return summarise(rewards.load("toy-oracle"), scores["aligned"], scores["base"])


CLAIMS: tuple[Claim, ...] = (Demo(),)
