"""A scorer trained on pairs that the oracle judged orders new prompts' images better than before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import rewards
from scripts.experiments import labelled_pairs
from scripts.experiments.claim import Figure, MeasuredOnce, Row
from scripts.experiments.estimates import Table, bar_figure, judged, line_figure
from scripts.experiments.training import finish, recipe
from t2ialign.evaluation.statistics import Estimate, by_category
from t2ialign.io import jsonl
from t2ialign.web.charts import curves

SCORES = "heldout.json"
TRAINING = recipe("reward_toy")


class TrainedClaim(MeasuredOnce):
    """Training and test share no caption and no seed; the best weights are chosen on training captions."""

    text = (
        "A scorer trained by t2ialign train reward orders held-out pairs as the oracle does more often than "
        "toy-clip, 95 % intervals apart"
    )
    paper = "Kirstain et al., NeurIPS 2023, arXiv 2305.01569 (the recipe)"
    result = SCORES
    train_prompts: int = 4000
    test_prompts: int = 2400
    train_per_prompt: int = 10
    test_per_prompt: int = 6
    training: ClassVar[dict[str, Any]] = TRAINING

    def measurement(self, folder: Path, seed: int) -> dict[str, Any]:
        """Sample, judge, train, and score the held-out pairs with both scorers."""
        sizes = {
            "train": (self.train_prompts, 3000 + seed, self.train_per_prompt),
            "test": (self.test_prompts, 4000 + seed, self.test_per_prompt),
        }
        for place, (name, (count, draw, each)) in enumerate(sizes.items()):
            # More images of one caption would make few more pairs, so each caption is sampled once.
            captions = labelled_pairs.distinct_captions(count, draw, held_out=name == "test")
            first_seed = (2 * seed + place) * 100_000 + 5_000_000
            labelled_pairs.sampled(folder / name, captions, each, first_seed=first_seed)
        run = folder / "training"
        finish("reward", {**self.training, "data": str(folder / "train.jsonl")}, run, seed)
        base, trained = rewards.load(self.training["reward"]), rewards.load("trained", weights=str(run))
        test = folder / "test.jsonl"
        margins = labelled_pairs.margins(test, {"base": base, "trained": trained})
        return {"prompts": [row["prompt"] for row in jsonl.read(test)], "margins": margins}

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """One row; a tie of the scorer counts as wrong."""
        table, categories = self._right(folders)
        means, difference = table.means(), table.difference("trained", "base")
        measured = {
            **{"base": means["base"], "trained": means["trained"], "difference": difference},
            "by_category": {
                name: {category: estimate.mean for category, estimate in column.items()}
                for name, column in categories.items()
            },
            "steps": self.training["max_steps"],
        }
        return [judged(self.text, measured, difference, means["trained"].low > means["base"].high)]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Held-out accuracy by category, and the first seed's training."""
        _, each = self._right(folders)
        pairs = {name: (before, each["trained"][name]) for name, before in each["base"].items()}
        journal = jsonl.read(folders[0] / "training" / "metrics.jsonl")
        names = {"heldout/accuracy": "pairs of held-out training captions", "accuracy": "training pairs"}
        series = curves(journal, names)
        drawn = {curve.name: dict(zip(curve.steps, curve.values, strict=True)) for curve in series}
        chance = "50 % is chance"
        return [
            bar_figure("Held-out accuracy", pairs, before="toy-clip", after="trained", note=chance),
            line_figure("Accuracy while training, first seed", drawn),
        ]

    def _right(self, folders: Sequence[Path]) -> tuple[Table, dict[str, dict[str, Estimate]]]:
        """Whether each scorer is right on each pair of all seeds, and its accuracy by category of prompts."""
        results, oracle = self.results(folders), rewards.load("toy-oracle")
        table = labelled_pairs.right(self.seeds, results)
        categories = [oracle.category(prompt) for seed in results for prompt in seed["prompts"]]
        columns = table.columns.items()
        return table, {name: by_category(column, table.units, categories) for name, column in columns}
