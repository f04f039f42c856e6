"""The presets of reward back-propagation side by side: images until a gain, and what each ends with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.judged_run import RUN, TRAINING, accuracies, train_and_judge
from t2ialign.evaluation.monitor_journal import TRAINED, read
from t2ialign.evaluation.statistics import bootstrap_ci, paired_difference
from t2ialign.training.log import METRICS, read_rows
from t2ialign.web.charts import Chart, Curve, lines

GAIN = 0.05
PRESETS = (
    "alignprop",
    "alignprop-uniform",
    "alignprop-normal",
    "draft",
    "draft-k",
    "draft-lv",
    "refl",
    "drtune",
)
"""Not alignprop-k, which at K = 1 is draft-k."""


class PresetClaim(Claim):
    """One preset on one seed: an ablation, with the learning rate and everything else alike."""

    paper = "Clark et al., ICLR 2024, arXiv 2309.17400; Prabhudesai et al. 2023, arXiv 2310.03739"
    seeds = (0,)
    ablation = True
    train_prompts: int = 400
    heldout_prompts: int = 130
    training: ClassVar[dict[str, Any]] = {
        **TRAINING,
        "accumulate": 1,
        "loss_scale": 1.0,
        "max_steps": 200,
        "evaluate_every": 25,
    }

    def __init__(self, preset: str) -> None:
        self.preset = preset
        self.text = f"{preset} raises oracle accuracy by >= {100 * GAIN:.0f} points within its budget"

    def measure(self, folder: Path, seed: int) -> None:
        """Train with the monitor, then let the oracle judge the monitor's pictures."""
        own: dict[str, Any] = {"preset": self.preset}
        common = {name: value for name, value in self.training.items() if name != "k"}
        if self.preset in ("refl", "drtune"):  # their hinges are in units of other rewards
            own |= {"loss": "maximise", "target": None, "early_stop": common["num_steps"] // 3}
        train_and_judge(folder, seed, {**common, **own}, self.train_prompts, self.heldout_prompts)

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """It holds if a checkpoint lies that far above the base; the row has the whole line of the table."""
        (folder,) = folders
        journal, passed = read(folder / RUN), accuracies(folder)
        prompts = [row["prompt"] for row in journal.at(0)]
        gains = {step: paired_difference(values, passed[0], prompts) for step, values in passed.items()}
        reached = [step for step, gain in gains.items() if gain.mean >= GAIN]
        last = journal.steps[-1]
        metrics = {row["step"]: row for row in read_rows(folder / RUN / METRICS)}
        steps = [row for step, row in metrics.items() if step]
        images = self.training["batch_size"]
        measured = {
            "images_until_gain": reached[0] * images if reached else None,
            "images": last * images,
            "reward": [journal_mean(journal.series("scores", TRAINED)[step]) for step in (0, last)],
            "accuracy": bootstrap_ci(passed[last], prompts).to_json(),
            "gain": gains[last].to_json(),
            "best_gain": max(gain.mean for gain in gains.values()),
            "diversity": [metrics[step]["monitor/diversity"] for step in (0, last)],
            "seconds_of_updates": sum(images / row["images_per_s"] for row in steps),
            "settings": dict(self.training),
        }
        return [Row(self.text, measured, (gains[last].low, gains[last].high), bool(reached))]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Oracle accuracy by images drawn for training."""
        passed, images = accuracies(folders[0]), self.training["batch_size"]
        means = [journal_mean(values) for values in passed.values()]
        curve = Curve(self.preset, [step * images for step in passed], means)
        chart = Chart(f"Oracle accuracy by training images: {self.preset}", [curve])
        return [Figure(chart.title, lines(chart))]


def journal_mean(values: Sequence[float]) -> float:
    """Of at least one number."""
    return sum(values) / len(values)
