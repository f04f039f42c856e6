"""Training long on one CLIP fools it: its score rises, the oracle's accuracy falls, the monitor sees it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

from scripts.experiments.claim import Claim, Figure, Row
from scripts.experiments.judged_run import RUN, TRAINING, accuracies, train_and_judge
from t2ialign.evaluation.hack_index import Fall, first_fired, in_base_std
from t2ialign.evaluation.monitor_journal import read
from t2ialign.evaluation.statistics import Estimate, bootstrap_ci, paired_difference
from t2ialign.web.charts import Chart, Curve, lines


class OverOptimisationClaim(Claim):
    """The monitor holds out shapes-clip-b and diversity; the oracle reads its pictures afterwards."""

    text = (
        "Training long on shapes-clip raises it while oracle accuracy falls: some checkpoint lies "
        "significantly below the oracle's peak with a higher score"
    )
    in_time = (
        "The monitor, which never sees the oracle, fires no later than the first checkpoint significantly "
        "below the oracle's peak"
    )
    paper = "Clark et al., ICLR 2024, arXiv 2309.17400 (reward hacking)"
    seeds = (3, 4, 5)
    """Not 0 to 2, on whose runs the unit of the mean's threshold was settled."""
    train_prompts: int = 400
    heldout_prompts: int = 140
    training: ClassVar[dict[str, Any]] = {
        **TRAINING,
        "guidance": 4.0,
        "monitor_guidance": 4.0,
        "max_steps": 240,
        "evaluate_every": 60,
        "monitor_images": 5,
    }

    def measure(self, folder: Path, seed: int) -> None:
        """Train with the monitor, then let the oracle judge the monitor's pictures."""
        train_and_judge(folder, seed, self.training, self.train_prompts, self.heldout_prompts)

    def rows(self, folders: Sequence[Path]) -> list[Row]:
        """Over-optimisation, then its discovery; each holds if it does in every seed."""
        seeds = [self._seed(folder) for folder in folders]
        worst = max(seeds, key=lambda found: found["last_minus_peak"]["mean"])["last_minus_peak"]
        interval = worst["ci95"] and (worst["ci95"][0], worst["ci95"][1])
        happens = all(found["falls"] and found["reward_rises"] for found in seeds)
        keys = ("first_significantly_below", "fired_by", "fired", "in_time")
        seen = [{key: found.pop(key) for key in keys} for found in seeds]
        return [
            Row(self.text, {"by_seed": seeds, "settings": dict(self.training)}, interval, happens),
            Row(self.in_time, {"by_seed": seen}, None, happens and all(found["in_time"] for found in seen)),
        ]

    def figures(self, folders: Sequence[Path]) -> list[Figure]:
        """Trained and held-out score in units of the base's spread, and oracle accuracy, first seed."""
        journal, passed = read(folders[0] / RUN), accuracies(folders[0])
        scaled = []
        for name, label in (
            ("trained", "shapes-clip (trained)"),
            ("shapes-clip-b", "shapes-clip-b (held out)"),
        ):
            change = in_base_std(journal.series("scores", name)) or {}
            scaled.append(Curve(label, list(change), list(change.values())))
        accuracy = [Curve("oracle", list(passed), [sum(v) / len(v) for v in passed.values()])]
        charts = [
            Chart("Scores, change in standard deviations of the base", scaled),
            Chart("Oracle accuracy on the monitor's pictures", accuracy),
        ]
        return [Figure(chart.title, lines(chart), "first seed") for chart in charts]

    def _seed(self, folder: Path) -> dict[str, Any]:
        journal, passed = read(folder / RUN), accuracies(folder)
        prompts = [row["prompt"] for row in journal.at(0)]
        peak = max(passed, key=lambda step: sum(passed[step]))
        worse = [
            step
            for step in passed
            if step > peak and paired_difference(passed[step], passed[peak], prompts).high < 0
        ]
        last = journal.steps[-1]
        falls = journal.falls()
        fired = first_fired(falls)
        trained = journal.series("scores", "trained")
        score = {step: sum(values) / len(values) for step, values in trained.items()}
        return {
            "oracle": {
                str(step): estimate.to_json() for step, estimate in _estimates(passed, prompts).items()
            },
            "peak": peak,
            "first_significantly_below": worse[0] if worse else None,
            "last_minus_peak": paired_difference(passed[last], passed[peak], prompts).to_json(),
            "falls": bool(worse),
            "reward": score,
            "reward_rises": any(score[step] > score[peak] for step in worse),
            "fired_by": {name: _first_step(falls, name) for name in dict.fromkeys(f.reward for f in falls)},
            "fired": fired.to_json() if fired else None,
            "in_time": bool(fired and worse and fired.step <= worse[0]),
        }


def _first_step(falls: Sequence[Fall], name: str) -> int | None:
    fired = first_fired(fall for fall in falls if fall.reward == name)
    return fired.step if fired else None


def _estimates(passed: dict[int, list[float]], prompts: Sequence[str]) -> dict[int, Estimate]:
    return {step: bootstrap_ci(values, prompts) for step, values in passed.items()}
