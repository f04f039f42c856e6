"""PAL finds two planted tastes in mixed votes, where one reward for all cannot; new voters need 20 votes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from tqdm import trange

import rewards
from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.pal_planted import recover, shapes_tastes
from t2ialign.evaluation.statistics import Estimate, bootstrap_ci
from t2ialign.io import jsonl
from t2ialign.web.charts import Bar, bars

JOURNAL = "populations.jsonl"
KINDS: dict[Literal["a", "b"], str] = {"a": "PAL-A", "b": "PAL-B"}
FIGURES = ("pal", "one_head", "new_voter", "new_voter_before", "agree")
LOW, HIGH, FEW = 0.9, 0.75, 20


class PalClaim(Claim):
    """A row for each kind of head; each population has its own pictures, voters, votes, first weights."""

    text = (
        "PAL recovers two planted voter types from mixed votes with >= 90 % held-out accuracy, new voters "
        "from 20 votes too, where one Bradley-Terry head stays <= 75 %"
    )
    paper = "Chen et al., ICLR 2025, arXiv 2406.08469"
    populations: int = 8
    """For each seed and kind."""
    pictures: int = 600
    options: ClassVar[dict[str, int]] = {}
    """For `recover`, so that a test can make it smaller."""

    def measure(self, folder: Path, seed: int) -> None:
        """Draw pictures of one thing each, embed them with shapes-clip, and let each population vote."""
        folder.mkdir(parents=True, exist_ok=True)
        file = folder / JOURNAL
        rows = jsonl.read(file)
        if file.exists():
            jsonl.rewrite(file, rows)
        done = {(row["kind"], row["population"]) for row in rows}
        for population in trange(self.populations, desc=f"PAL, seed {seed}", unit="population"):
            left = [kind for kind in KINDS if (kind, population) not in done]
            if not left:
                continue
            number = 1000 * seed + population
            images, tastes, text = self.embedded(number)
            for kind in left:
                words = text if kind == "b" else None
                found = recover(images, tastes, kind=kind, text=words, seed=number, few=FEW, **self.options)
                line = {name: getattr(found, name) for name in FIGURES}
                jsonl.append(file, [{"kind": kind, "population": population, **line}])

    def embedded(self, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Unit embeddings of pictures (N, D), tastes of them (2, N), unit embeddings of prompts (P, D)."""
        from t2ialign.toy.captions import draw_caption, write
        from t2ialign.toy.render import render

        rng = np.random.default_rng(seed)
        captions = [write(draw_caption(rng, "attribute")) for _ in range(self.pictures)]
        pixels = torch.from_numpy(render(captions, seed)).permute(0, 3, 1, 2).float() / 255
        scorer = rewards.load("shapes-clip")
        assert isinstance(scorer, rewards.TwoTower), "shapes-clip has two towers"
        with torch.no_grad():
            images = torch.cat([scorer.encode_image(scorer.preprocess(part)) for part in pixels.split(256)])
            text = scorer.encode_text(["a shape", "a picture of one thing", "something small"])
        return images, shapes_tastes(captions), text

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """A row for each kind; it holds if both intervals lie beyond their limits."""
        found = []
        for kind, name in KINDS.items():
            each = self._estimates(folders, kind)
            measured: dict[str, Any] = {figure: estimate.to_json() for figure, estimate in each.items()}
            holds = min(each["pal"].low, each["new_voter"].low) >= LOW and each["one_head"].high <= HIGH
            text = (
                f"{name} recovers two planted voter types from mixed votes with >= 90 % held-out accuracy, "
                f"new voters from {FEW} votes too, where one Bradley-Terry head stays <= 75 %"
            )
            found.append(Row(text, measured, (each["pal"].low, each["pal"].high), holds))
        return found

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Seen voters beside one head, new voters before and after their votes."""
        charts = []
        for kind, name in KINDS.items():
            each = self._estimates(folders, kind)
            rows = [
                Bar("seen voters", each["one_head"], each["pal"]),
                Bar("new voters", each["new_voter_before"], each["new_voter"]),
            ]
            note = "before: one head for all, or the population's mean taste; after: the voter's own mixture"
            charts.append(Figure(f"Held-out accuracy: {name}", bars(rows, before="before", after=name), note))
        return charts

    def _estimates(self, folders: Sequence[Path], kind: str) -> dict[str, Estimate]:
        """Means over all populations of all seeds, each of which is one unit of the bootstrap."""
        lines = [
            (f"{seed} {row['population']}", row)
            for seed, folder in zip(self.seeds, folders, strict=True)
            for row in jsonl.read(folder / JOURNAL)
            if row["kind"] == kind
        ]
        units = [unit for unit, _ in lines]
        return {figure: bootstrap_ci([row[figure] for _, row in lines], units) for figure in FIGURES}
