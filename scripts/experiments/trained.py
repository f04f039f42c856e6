"""A scorer trained on pairs that the oracle judged orders new prompts' images better than before."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from tqdm import trange

import rewards
from scripts.experiments import labelled_pairs
from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.resumed import finish
from t2ialign.evaluation.statistics import Estimate, bootstrap_ci, by_category, paired_difference
from t2ialign.io import atomic, jsonl
from t2ialign.web.charts import Bar, Chart, bars, curves, lines

SCORES = "heldout.json"
SAMPLER = ("--steps=8", "--guidance=4", "--batch-size=128")
TRAINING: dict[str, Any] = {
    "reward": "shapes-clip",
    "holdout": 0.1,
    "scale": 30.0,
    "lr": 2e-4,
    "lr_schedule": "cosine",
    "lr_warmup": 20,
    "weight_decay": 0.01,
    "max_steps": 200,
    "batch_size": 64,
    "accumulate": 1,
    "evaluate_every": 50,
    "checkpoint_every": 50,
}
"""The recipe reward_shapes.yaml."""


class TrainedClaim(Claim):
    """Training and test share no caption and no seed; the best weights are chosen on training captions."""

    text = (
        "A scorer trained by t2ialign train reward orders held-out pairs as the oracle does more often than "
        "shapes-clip, 95 % intervals apart"
    )
    paper = "Kirstain et al., NeurIPS 2023, arXiv 2305.01569 (the recipe)"
    train_prompts: int = 4000
    test_prompts: int = 2400
    train_per_prompt: int = 10
    test_per_prompt: int = 6
    training: ClassVar[dict[str, Any]] = TRAINING

    def measure(self, folder: Path, seed: int) -> None:
        """Sample, judge, train, and score the held-out pairs with both scorers."""
        from t2ialign.toy.captions import draw_captions

        if (folder / SCORES).exists():
            return
        folder.mkdir(parents=True, exist_ok=True)
        drawn = {
            "train": (draw_captions(self.train_prompts, 3000 + seed, held_out=False), self.train_per_prompt),
            "test": (draw_captions(self.test_prompts, 4000 + seed, held_out=True), self.test_per_prompt),
        }
        for place, (name, (repeated, each)) in enumerate(drawn.items()):
            captions = list(dict.fromkeys(repeated))  # more images of one caption would make few more pairs
            first_seed = (2 * seed + place) * 100_000 + 5_000_000
            labelled_pairs.sampled(folder / name, captions, each, first_seed=first_seed, options=SAMPLER)
        run = folder / "training"
        finish("reward", {**self.training, "data": str(folder / "train.jsonl")}, run, seed)
        rows = jsonl.read(folder / "test.jsonl")
        scorers = {
            "base": rewards.load(self.training["reward"]),
            "trained": rewards.load("trained", weights=str(run)),
        }
        margins = {name: _margins(scorer, folder, rows) for name, scorer in scorers.items()}
        prompts = [row["prompt"] for row in rows]
        atomic.write_json(folder / SCORES, {"prompts": prompts, "margins": margins})

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """One row; a tie of the scorer counts as wrong."""
        right, units, prompts = self._right(folders)
        base, trained = (bootstrap_ci(right[name], units) for name in ("base", "trained"))
        difference = paired_difference(right["trained"], right["base"], units)
        categories = {
            name: {category: estimate.mean for category, estimate in column.items()}
            for name, column in self._by_category(right, units, prompts).items()
        }
        measured = {
            "base": base.to_json(),
            "trained": trained.to_json(),
            "difference": difference.to_json(),
            "by_category": categories,
            "steps": self.training["max_steps"],
        }
        return [Row(self.text, measured, (difference.low, difference.high), trained.low > base.high)]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Held-out accuracy by category, and the first seed's training."""
        right, units, prompts = self._right(folders)
        each = self._by_category(right, units, prompts)
        rows = [Bar(name, before, each["trained"][name]) for name, before in each["base"].items()]
        journal = jsonl.read(folders[0] / "training" / "metrics.jsonl")
        names = {"heldout/accuracy": "pairs of held-out training captions", "accuracy": "training pairs"}
        chart = Chart("Accuracy while training, first seed", curves(journal, names))
        return [
            Figure("Held-out accuracy", bars(rows, before="shapes-clip", after="trained"), "50 % is chance"),
            Figure(chart.title, lines(chart)),
        ]

    def _right(self, folders: Sequence[Path]) -> tuple[dict[str, list[float]], list[str], list[str]]:
        """Whether each scorer is right on each pair of all seeds, the unit of the bootstrap, the caption."""
        right: dict[str, list[float]] = {"base": [], "trained": []}
        units, prompts = list[str](), list[str]()
        for seed, folder in zip(self.seeds, folders, strict=True):
            found = json.loads((folder / SCORES).read_text())
            for name, column in right.items():
                column += [float(margin > 0) for margin in found["margins"][name]]
            units += [f"{seed} {prompt}" for prompt in found["prompts"]]
            prompts += found["prompts"]
        return right, units, prompts

    def _by_category(
        self, right: dict[str, list[float]], units: list[str], prompts: list[str]
    ) -> dict[str, dict[str, Estimate]]:
        oracle = rewards.load("shapes-oracle")
        categories = [oracle.category(prompt) for prompt in prompts]
        return {name: by_category(column, units, categories) for name, column in right.items()}


@torch.no_grad()
def _margins(scorer: rewards.Reward, folder: Path, rows: Sequence[dict[str, Any]]) -> list[float]:
    """Score of the chosen image minus that of the rejected one, for each pair."""
    from t2ialign.evaluation.manifest_scores import read_image

    found: list[float] = []
    for start in trange(0, len(rows), 128, desc="held-out pairs", unit="batch", delay=3):
        part = rows[start : start + 128]
        prompts = [row["prompt"] for row in part]
        chosen, rejected = (
            scorer(torch.stack([read_image(folder / row[side]) for row in part]), prompts)
            for side in ("chosen", "rejected")
        )
        found += (chosen - rejected).tolist()
    return found
