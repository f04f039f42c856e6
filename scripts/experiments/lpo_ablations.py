"""LPO's timestep range, threshold and beta, one change at a time, all judged by one latent reward."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from scripts.experiments import stepwise_setting as setting
from scripts.experiments.claim import Row
from scripts.experiments.resumed import finish
from t2ialign.evaluation.statistics import bootstrap_ci, paired_difference
from t2ialign.io import atomic
from t2ialign.training.log import METRICS, read_rows

SHARED = "ablation-judge"
"""Beside the claims: pairs, latent reward and the base's accuracy, made by the first ablation to run."""
RESULT = "accuracy.json"
ABLATIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "t from 750 to 950": {"t_min": 750},
    "t from 0 to 450": {"t_max": 450},
    **{f"threshold {x:g}": {"threshold_low": x, "threshold_high": x} for x in (0.1, 0.2, 0.3, 0.4)},
    "threshold with the variance": {"threshold_schedule": "variance"},
    "threshold with t": {"threshold_schedule": "linear"},
    **{f"beta {beta:g}": {"beta": beta} for beta in (5.0, 15.0, 150.0, 500.0)},
}
"""Row of the table -> what is other than in stepwise_setting.STEPWISE."""


class AblationClaim(setting.SteppedClaim):
    """One row of the table on one seed."""

    seeds = (0,)
    ablation = True
    judge: ClassVar[dict[str, Any]] = setting.JUDGE
    training: ClassVar[dict[str, Any]] = {**setting.STEPWISE, "preset": "lpo", "max_steps": 160}

    def __init__(self, name: str) -> None:
        self.changed = ABLATIONS[name]
        self.text = f"LPO raises oracle accuracy: {name}"

    def measure(self, folder: Path, seed: int) -> None:
        """Train with the shared judge, and let the oracle judge pictures of held-out captions."""
        if (folder / RESULT).exists():
            return
        shared, prompts = folder.parents[1] / SHARED, self.held_out(seed)
        self.make_pairs(shared, seed)
        finish("lrm", {**self.judge, "data": str(shared / setting.PAIRS)}, shared / "lrm", seed)
        if not (shared / RESULT).exists():
            atomic.write_json(shared / RESULT, setting.judged(None, prompts, seed))
        values = {**self.training, **self.changed, "prompts": str(shared / setting.PROMPTS)}
        values |= {"reward_options": {"path": str(shared / "lrm")}, "checkpoint_every": 40}
        finish("lpo", values, folder / "run", seed)
        passed = setting.judged(setting.checkpoint_of(folder / "run", values["max_steps"]), prompts, seed)
        base = json.loads((shared / RESULT).read_text())
        atomic.write_json(folder / RESULT, {"prompts": prompts, "base": base, "passed": passed})

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """It holds if the gain is above chance; the row has the whole line of the table."""
        (folder,) = folders
        found = json.loads((folder / RESULT).read_text())
        prompts, metrics = found["prompts"], read_rows(folder / "run" / METRICS)
        gain = paired_difference(found["passed"], found["base"], prompts)
        rounds = [row for row in metrics if "step_reward" in row]
        measured = {
            "accuracy": bootstrap_ci(found["passed"], prompts).to_json(),
            "gain": gain.to_json(),
            "step_reward": [rounds[place]["step_reward"] for place in (0, -1)],
            "rounds": len(rounds),
            "valid_rows_a_round": sum(row["valid"] for row in rounds) / len(rounds),
            "valid_by_band": [sum(row[f"valid_band_{i}"] for row in rounds) / len(rounds) for i in range(4)],
            "settings": self.changed,
        }
        return [Row(self.text, measured, (gain.low, gain.high), gain.low > 0)]
