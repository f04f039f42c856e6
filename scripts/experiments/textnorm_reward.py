"""TextNorm as the reward that is climbed, against the raw score, each at its own learning rate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.judged_run import RUN, TRAINING, accuracies, train_and_judge
from t2ialign.evaluation.monitor_journal import read
from t2ialign.evaluation.statistics import Estimate, bootstrap_ci, paired_difference
from t2ialign.web.charts import Bar, bars

SIDES: dict[str, dict[str, Any]] = {
    "raw": {"reward": "shapes-clip", "lr": 7e-4},
    "textnorm": {
        "reward": "rewards.scorers.textnorm",
        "reward_options": {"base": "shapes-clip", "contrast": "shapes", "scale": 50.0, "form": "log"},
        "lr": 5e-4,
    },
}
"""What differs between the runs; rates (of 5e-4, 7e-4 and 1e-3) and scale (of 20 and 50) by trials on another
seed."""


class TextNormRewardClaim(Claim):
    """The same prompts, seeds, number of updates and sampler; the oracle judges held-out captions."""

    text = (
        "Climbing TextNorm(shapes-clip) ends at a higher oracle accuracy than climbing shapes-clip, 95 % "
        "intervals apart"
    )
    paper = "Kim et al., ICLR 2024, arXiv 2404.01863"
    max_steps: int = 200
    train_prompts: int = 400
    heldout_prompts: int = 130
    training: ClassVar[dict[str, Any]] = TRAINING

    def measure(self, folder: Path, seed: int) -> None:
        """Both runs, and the oracle on the monitor's pictures."""
        for name, changes in SIDES.items():
            training = {**self.training, **changes, "max_steps": self.max_steps}
            train_and_judge(
                folder / name,
                seed,
                {**training, "evaluate_every": self.max_steps},
                self.train_prompts,
                self.heldout_prompts,
            )

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """The last checkpoint of each, over all pictures of all seeds."""
        units, passed = self._passed(folders)
        each = {name: bootstrap_ci(values, units) for name, values in passed.items()}
        difference = paired_difference(passed["textnorm"], passed["raw"], units)
        measured = {
            **{name: estimate.to_json() for name, estimate in each.items()},
            "difference": difference.to_json(),
            "settings": SIDES,
            "steps": self.max_steps,
        }
        holds = each["textnorm"].low > each["raw"].high
        return [Row(self.text, measured, (difference.low, difference.high), holds)]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Oracle accuracy after each, beside the base's."""
        units, passed = self._passed(folders)
        each: dict[str, Estimate] = {name: bootstrap_ci(v, units) for name, v in passed.items()}
        rows = [Bar(name, each["base"], each[name]) for name in SIDES]
        return [Figure("Oracle accuracy", bars(rows, before="base", after="trained"), "whiskers: 95 %")]

    def _passed(self, folders: Sequence[Path]) -> tuple[list[str], dict[str, list[float]]]:
        units: list[str] = []
        passed: dict[str, list[float]] = {"base": [], **{name: [] for name in SIDES}}
        for seed, folder in zip(self.seeds, folders, strict=True):
            for name in SIDES:
                found = accuracies(folder / name)
                passed[name] += found[self.max_steps]
            passed["base"] += found[0]
            units += [f"{seed} {row['prompt']}" for row in read(folder / "raw" / RUN).at(0)]
        return units, passed
