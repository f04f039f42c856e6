"""The demo's claim: DPO on the embedded model raises held-out oracle accuracy."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import rewards
from scripts.experiments.claim import Claim, Figure, Row
from t2ialign.cli import demo
from t2ialign.evaluation.comparison import Summary, summarise
from t2ialign.io import jsonl
from t2ialign.toy.suite import GUIDANCE
from t2ialign.web.charts import Bar, bars

GAIN = 0.10
"""Points of oracle accuracy that the demo claims."""
AT_SUITE = "at_suite_guidance"
"""The same prompts and seeds at the guidance that suits the base model best."""
NAMES = {"base": "baseline", "aligned": "scores", "difference": "difference"}
"""What a row calls a column of `evaluate`."""


class Demo(Claim):
    """`t2ialign demo` for each seed; one bootstrap by prompt over every image of every seed."""

    text = f"DPO raises held-out oracle accuracy by >= {100 * GAIN:.0f} points, 95 % intervals apart"

    def measure(self, folder: Path, seed: int) -> None:
        """Run the demo, from where it was cut off, and measure its result at the suite's guidance too."""
        demo.make(folder, seed)
        demo.measure(folder, seed, into=folder / AT_SUITE, guidance=GUIDANCE)

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """Two rows: at the demo's guidance, and the same LoRA at the suite's."""
        results = [json.loads((folder / demo.RESULT).read_text()) for folder in folders]
        by_seed = [
            {name: result[name]["accuracy"] for name in ("base", "aligned")} | {"seconds": result["seconds"]}
            for result in results
        ]
        at_suite = [folder / AT_SUITE for folder in folders]
        return [
            self._row(folders, demo.SAMPLER["guidance"], {"by_seed": by_seed}),
            self._row(at_suite, GUIDANCE, {}),
        ]

    def _row(self, folders: Sequence[Path], guidance: float, more: dict[str, Any]) -> Row:
        columns = self._columns(folders)
        base, aligned, difference = (columns[name]["all"] for name in NAMES.values())
        measured = {
            **{name: columns[key]["all"].to_json() for name, key in NAMES.items()},
            "by_category": {
                name: {"base": columns["baseline"][name].mean, "aligned": columns["scores"][name].mean}
                for name in columns["scores"]
                if name != "all"
            },
            "guidance": guidance,
            **more,
        }
        holds = difference.mean >= GAIN and aligned.low > base.high
        claim = f"{self.text}, at guidance {guidance:g}"
        return Row(claim, measured, (difference.low, difference.high), holds)

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Accuracy by category at both guidances."""
        both = {demo.SAMPLER["guidance"]: folders, GUIDANCE: [folder / AT_SUITE for folder in folders]}
        return [self._figure(f"Oracle accuracy at guidance {g:g}", runs) for g, runs in both.items()]

    def _figure(self, title: str, folders: Sequence[Path]) -> Figure:
        columns = self._columns(folders)
        base, aligned = columns["baseline"], columns["scores"]
        rows = [Bar(name, base[name], aligned[name]) for name in base]
        return Figure(title, bars(rows, before="base", after="aligned"), "whiskers: 95 %")

    def _columns(self, folders: Sequence[Path]) -> dict[str, Summary]:
        scores: dict[str, list[dict[str, Any]]] = {"base": [], "aligned": []}
        for folder in folders:
            for name, rows in scores.items():
                rows += jsonl.read(folder / name / demo.SCORES)
        return summarise(rewards.load("shapes-oracle"), scores["aligned"], scores["base"])


CLAIMS: tuple[Claim, ...] = (Demo(),)
