"""Trained on x, tested on y: how far runs moved every reward, each in units of the base's spread."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from t2ialign.evaluation.hack_index import spread
from t2ialign.evaluation.monitor_journal import TRAINED, Journal
from t2ialign.evaluation.statistics import Estimate, paired_difference

SETTINGS = ("prompts", "images", "model", "steps", "guidance")
"""The settings that runs must share to stand in one table."""


@dataclass(frozen=True)
class Change:
    """The change of one reward in one run, from the base to its last step."""

    raw: Estimate
    """The change in the reward's unit, over images of the same prompt and seed, interval by prompt."""
    base_std: float
    """Standard deviation of the base's means over prompts; 0 where all are alike."""
    trained_on: bool
    """Whether the run was trained on it: then it says that training worked, not that images are better."""

    @property
    def scaled(self) -> Estimate | None:
        """The change in units of `base_std`, None where that is 0."""
        unit, raw = self.base_std, self.raw
        if not unit:
            return None
        return Estimate(raw.mean / unit, raw.low / unit, raw.high / unit, raw.count, raw.prompts)

    def to_json(self) -> dict[str, object]:
        """{"base_std_units", "raw", "base_std", "trained_on"}, for a report file."""
        return {
            "base_std_units": self.scaled.to_json() if self.scaled else None,
            "raw": self.raw.to_json(),
            "base_std": self.base_std,
            "trained_on": self.trained_on,
        }


def matrix(runs: Mapping[str, Journal]) -> dict[str, dict[str, Change]]:
    """Run -> reward -> its change; the trained reward under its own name.

    Raises ValueError if runs were not measured on the same prompts, seeds, model and sampler.
    """
    check_alike(runs)
    return {run: _row(journal) for run, journal in runs.items()}


def check_alike(runs: Mapping[str, Journal]) -> None:
    """Raises ValueError if runs were not measured on the same prompts, seeds, model and sampler."""
    (first, one), *others = runs.items()
    for run, other in others:
        for key in SETTINGS:
            if one.about[key] != other.about[key]:
                raise ValueError(
                    f"got {run}, whose monitor has other {key} than that of {first}; expected the same, to "
                    "compare image by image; show them apart"
                )


def _row(journal: Journal) -> dict[str, Change]:
    last, trained_name = journal.at(journal.steps[-1]), journal.about["trained"]
    base = {(row["prompt"], row["seed"]): row["scores"] for row in journal.at(journal.steps[0])}
    changes = {}
    for key in last[0]["scores"]:
        before = [base[row["prompt"], row["seed"]][key] for row in last]
        after, prompts = [row["scores"][key] for row in last], [row["prompt"] for row in last]
        unit = spread(journal.series("scores", key))
        name = trained_name if key == TRAINED else key
        changes[name] = Change(paired_difference(after, before, prompts), unit, key == TRAINED)
    return changes
